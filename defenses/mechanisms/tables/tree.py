"""Which pairs rows are drawn from: a spanning tree of the pairs whose dependence stands out of the noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from defenses.mechanisms.tables.consistency import Cells, Fitted
from defenses.mechanisms.tables.margins import Margin
from defenses.records import IntArray

_DEVIATIONS = 2.0  # how far dependence must stand out of what noise alone looks like


@dataclass(frozen=True)
class Step:
    """One column in the order of drawing.

    Attributes:
        column: The column.
        parent: The column that it is drawn given, or None: by itself.
    """

    column: str
    parent: str | None


def dependence(table: Cells, one: Cells, other: Cells, *, noise: float) -> float:
    """Return how far a pair is from independence, beyond what noise alone would show, in rows.

    The sum over cells of |count - expected|, less what so many cells of Laplace noise add up to by chance (their mean
    and two standard deviations).

    Args:
        table: Counts (a, b) with noise, cells below zero left in.
        one: Counts (a,) of the first column.
        other: Counts (b,) of the second column.
        noise: Scale of the noise of each cell.
    """
    total = max(float(one.sum()), 1.0)
    distance = float(np.abs(table - np.outer(one, other) / total).sum())
    return distance - noise * (table.size + _DEVIATIONS * math.sqrt(table.size))


def order_of(fitted: Fitted, *, noise: float, all_pairs: bool = False) -> tuple[Step, ...]:
    """Return in which order columns are drawn, each given at most one other.

    The maximum spanning forest over the pairs by `dependence` (Kruskal). A pair that does not stand out of its noise is
    left out, for rows drawn from it would be more wrong than independent ones; columns that no pair connects are
    independent. Pairs outside the tree still sharpen each column's own counts, and the comparison of pairs itself.

    Args:
        fitted: The tables.
        noise: Scale of the noise of each cell.
        all_pairs: Whether pairs that do not stand out may be used too (the paper's way).

    Source: Chow and Liu 1968 for the tree; the correction for noise follows McKenna et al. 2022 (AIM).
    """
    strength = {
        margin: dependence(fitted.unclamped[margin], fitted.ones[margin[0]], fitted.ones[margin[1]], noise=noise)
        for margin in fitted.pairs
    }
    group = {name: name for name in fitted.ones}
    edges: dict[str, list[str]] = {name: [] for name in fitted.ones}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for one, other in sorted(strength, key=lambda margin: -strength[margin]):
        if (all_pairs or strength[one, other] > 0) and root(one) != root(other):
            group[root(other)] = root(one)
            edges[one].append(other)
            edges[other].append(one)
    return _walk(edges)


def _walk(edges: Mapping[str, list[str]]) -> tuple[Step, ...]:
    found: dict[str, Step] = {}
    for start in edges:
        if start in found:
            continue
        found[start] = Step(start, None)
        waiting = [start]
        while waiting:
            here = waiting.pop(0)
            for name in edges[here]:
                if name not in found:
                    found[name] = Step(name, here)
                    waiting.append(name)
    return tuple(found.values())


def draw(fitted: Fitted, order: tuple[Step, ...], rows: int, rng: np.random.Generator) -> dict[str, IntArray]:
    """Draw rows from the tables, column after column.

    Args:
        fitted: The tables.
        order: From `order_of`.
        rows: How many rows.
        rng: Where the draws come from.

    Returns:
        Column -> (rows,) codes.
    """
    found: dict[str, IntArray] = {}
    for step in order:
        alone = fitted.ones[step.column]
        if step.parent is None:
            found[step.column] = _drawn(alone, rows, rng)
            continue
        margin: Margin = (step.parent, step.column)
        table = fitted.pairs[margin] if margin in fitted.pairs else fitted.pairs[margin[::-1]].T
        given = found[step.parent]
        codes = np.zeros(rows, dtype=np.int64)
        for value in np.unique(given):
            here = np.flatnonzero(given == value)
            codes[here] = _drawn(table[value] if table[value].any() else alone, len(here), rng)
        found[step.column] = codes
    return found


def _drawn(counts: Cells, rows: int, rng: np.random.Generator) -> IntArray:
    return rng.choice(len(counts), rows, p=counts / counts.sum()).astype(np.int64)
