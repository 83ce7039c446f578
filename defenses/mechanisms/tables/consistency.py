"""From noisy tables to tables that could be counts of one population: post-processing, which costs nothing.

Tables that share a column say something about it twice. Their answers are averaged by inverse variance, so a table
helps every other one that it shares a column with; cells below zero are removed by the nearest table without any, not
by clipping, which would push every total up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.mechanisms.tables.margins import Margin

Cells = npt.NDArray[np.float64]

_ROUNDS = 100
_CLOSE = 1e-9
_FLOOR = 1e-9  # share of independence mixed into each pair, so that every row that must hold somebody can


@dataclass(frozen=True)
class Fitted:
    """Tables that agree.

    Attributes:
        total: Number of rows that they describe, above 0.
        ones: Column -> (size,) counts, at least 0, adding up to the total.
        pairs: Pair of columns -> counts (size, size), at least 0; sums over rows and columns are `ones`.
        unclamped: Pair -> its counts before cells below zero were removed, from which dependence is judged.
    """

    total: float
    ones: Mapping[str, Cells]
    pairs: Mapping[Margin, Cells]
    unclamped: Mapping[Margin, Cells]


def fit(margins: Sequence[Margin], tables: Sequence[npt.NDArray[Any]], *, total: float | None) -> Fitted:
    """Make noisy tables agree on the total and on every column, without cells below zero.

    First the total (public, or averaged over tables), then each column (averaged over the tables that hold it) by equal
    shifts of the cells that add up to it; a later shift undoes no earlier one. Then each column is replaced by the
    nearest (least squares) counts of at least 0 with that total, and each pair likewise, and is scaled to its columns'
    counts by iterative proportional fitting.

    Args:
        margins: Columns of each table.
        tables: Their noisy counts, all with noise of one variance.
        total: Number of rows where it is public, else None.

    Source: Hay et al. 2010 and Qardaji, Yang and Li 2014 (PriView) for averaging and shifting; Duchi et al. 2008 for
    the projection; Deming and Stephan 1940 for the fitting; Altschuler, Weed and Rigollet 2017 for its last step.
    """
    noisy = [np.array(table, dtype=np.float64) for table in tables]
    if total is None:
        weights = np.array([1 / table.size for table in noisy])
        total = max(float(np.dot(weights, [table.sum() for table in noisy]) / weights.sum()), 1.0)
    for table in noisy:
        table += (total - table.sum()) / table.size
    ones = {}
    for name in dict.fromkeys(name for margin in margins for name in margin):
        holders = [(table, margin.index(name)) for margin, table in zip(margins, noisy, strict=True) if name in margin]
        ones[name] = nearest_counts(_agree(holders), total)
    unclamped: dict[Margin, Cells] = {
        margin: table for margin, table in zip(margins, noisy, strict=True) if len(margin) == 2
    }
    pairs: dict[Margin, Cells] = {
        margin: _scaled(nearest_counts(table, total), ones[margin[0]], ones[margin[1]])
        for margin, table in unclamped.items()
    }
    return Fitted(total, ones, pairs, unclamped)


def clipped(margins: Sequence[Margin], tables: Sequence[npt.NDArray[Any]], *, total: float) -> Fitted:
    """Clip each table at zero and normalise it, for itself: the paper's way. Tables may disagree.

    A column's own counts come from its own table, else from the first pair that holds it.
    """
    found: dict[Margin, Cells] = {}
    for margin, table in zip(margins, tables, strict=True):
        kept = np.clip(np.array(table, dtype=np.float64), 0, None)
        found[margin] = kept * (total / kept.sum()) if kept.any() else np.full(kept.shape, total / kept.size)
    ones = {margin[0]: table for margin, table in found.items() if len(margin) == 1}
    for margin, table in found.items():
        for axis, name in enumerate(margin):
            ones.setdefault(name, table.sum(axis=1 - axis) if len(margin) == 2 else table)
    pairs: dict[Margin, Cells] = {margin: table for margin, table in found.items() if len(margin) == 2}
    return Fitted(total, ones, pairs, pairs)


def nearest_counts(table: Cells, total: float) -> Cells:
    """Return the table of cells at least 0 that add up to `total` and is nearest to `table` in least squares."""
    falling = np.sort(table, axis=None)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, falling.size + 1)
    last = int(np.flatnonzero(falling > excess)[-1])
    nearest: Cells = np.clip(table - excess[last], 0.0, None)
    return nearest


def _agree(holders: Sequence[tuple[Cells, int]]) -> Cells:
    """Average what tables say of one column, and shift each of them to it, in place."""
    said = [table.sum(axis=1 - axis) if table.ndim == 2 else table.copy() for table, axis in holders]
    summed = [table.size / len(one) for (table, _), one in zip(holders, said, strict=True)]
    weights = np.array([1 / count for count in summed])
    mean: Cells = np.tensordot(weights / weights.sum(), np.array(said), axes=1)
    for (table, axis), one, count in zip(holders, said, summed, strict=True):
        shift = (mean - one) / count
        table += shift if table.ndim == 1 else np.expand_dims(shift, 1 - axis)
    return mean


def _scaled(table: Cells, rows: Cells, columns: Cells) -> Cells:
    """Scale a table's rows and columns in turn towards what they should add up to, then add what is left over."""
    total = rows.sum()
    found: Cells = table + _FLOOR * np.outer(rows, columns) / total
    for _ in range(_ROUNDS):
        found *= _factors(rows, found.sum(axis=1))[:, None]
        found *= _factors(columns, found.sum(axis=0))
        if np.abs(found.sum(axis=1) - rows).max() <= _CLOSE * total:
            break
    # Where cells of zero are in the way, scaling alone may take forever (Altschuler, Weed and Rigollet 2017, sec. 3).
    found *= np.minimum(_factors(rows, found.sum(axis=1)), 1)[:, None]
    found *= np.minimum(_factors(columns, found.sum(axis=0)), 1)
    left = np.clip(rows - found.sum(axis=1), 0, None), np.clip(columns - found.sum(axis=0), 0, None)
    if left[0].sum() > 0:
        found += np.outer(*left) / left[0].sum()
    return found


def _factors(wanted: Cells, there: Cells) -> Cells:
    return np.divide(wanted, there, out=np.zeros_like(there), where=there > 0)
