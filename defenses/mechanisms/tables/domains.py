"""What a column can hold, known publicly and before any row is looked at: categories, or the edges of bins."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.records import IntArray

Scalar = str | int | float | bool


@dataclass(frozen=True, init=False)
class Categories:
    """A column that holds one of a few values.

    Attributes:
        values: The values, each once.
        missing: Whether a cell may be empty, which is then one more category; None: where the column's type allows it.

    Raises:
        ValueError: If there is no value, one is repeated, or one is not text, a number or a truth value.
    """

    values: tuple[Scalar, ...]
    missing: bool | None = None

    def __init__(self, *values: Scalar, missing: bool | None = None) -> None:
        found = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        object.__setattr__(self, "values", found)
        object.__setattr__(self, "missing", missing)
        if not found:
            raise ValueError("a domain has no category; list every value that the column can hold")
        odd = [value for value in found if not isinstance(value, str | int | float | bool) or value != value]
        if odd:
            raise ValueError(f"category {odd[0]!r} is not text, a number or a truth value; give missing=True for gaps")
        if len(set(found)) < len(found):
            twice = next(value for value in found if found.count(value) > 1)
            raise ValueError(f"category {twice!r} is listed twice (1 and True are the same value); list it once")

    @property
    def size(self) -> int:
        """Number of cells, the empty cell included."""
        return len(self.values) + bool(self.missing)


@dataclass(frozen=True)
class Bins:
    """A column of numbers, told apart only by the bin that they fall in.

    Bin i holds edges[i] <= value < edges[i + 1]. A number below the first edge counts in the first bin, one at or above
    the last edge in the last bin, so that every number has a place.

    Attributes:
        edges: At least two, rising, finite, in the source's units; public.
        whole: Whether values are whole numbers; a column of integers always is.
        missing: Whether a cell may be empty, which is then one more bin; None: where the column's type allows it.

    Raises:
        ValueError: If the edges do not rise, or a bin of whole numbers holds none.
    """

    edges: tuple[float, ...]
    whole: bool = False
    missing: bool | None = None

    def __post_init__(self) -> None:
        edges = tuple(float(edge) for edge in self.edges)
        object.__setattr__(self, "edges", edges)
        rising = all(low < high for low, high in itertools.pairwise(edges))
        if len(edges) < 2 or not rising or not all(map(math.isfinite, edges)):
            raise ValueError(f"bin edges are {list(edges[:6])}; give at least two finite numbers, each above the last")
        if self.whole:
            empty = [pair for pair in itertools.pairwise(edges) if math.ceil(pair[0]) >= pair[1]]
            if empty:
                raise ValueError(f"the bin from {empty[0][0]} to {empty[0][1]} holds no whole number; give wider bins")

    @property
    def size(self) -> int:
        """Number of cells, the empty cell included."""
        return len(self.edges) - 1 + bool(self.missing)

    def codes(self, numbers: npt.NDArray[np.float64]) -> IntArray:
        """Return the bin of each number, and the last code for NaN."""
        found = np.searchsorted(np.array(self.edges[1:-1]), numbers, side="right").astype(np.int64)
        found[np.isnan(numbers)] = len(self.edges) - 1
        return found

    def numbers(self, codes: IntArray, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw a number from each bin, all alike likely (float64), and NaN for the empty cell."""
        edges = np.array([*self.edges, np.nan])
        there = codes < len(self.edges) - 1
        low, high = edges[np.where(there, codes, 0)], edges[np.where(there, codes + 1, 1)]
        if self.whole:
            low, high = np.ceil(low), np.ceil(high)
            found = low + np.floor(rng.random(len(codes)) * (high - low))
            found = np.minimum(found, high - 1)
        else:
            found = np.minimum(low + rng.random(len(codes)) * (high - low), np.nextafter(high, low))
        return np.where(there, found, np.nan)


Domain = Categories | Bins


def whole_numbers(low: int, high: int, *, step: int = 1, missing: bool | None = None) -> Bins:
    """Return bins for the whole numbers `low` .. `high`, both included, `step` numbers in each.

    Examples:
        >>> whole_numbers(17, 90).size
        74
    """
    if step < 1 or high < low:
        raise ValueError(f"low is {low}, high {high} and step {step}; give low <= high and a step of at least 1")
    edges = [*range(low, high + 1, step), high + 1]
    return Bins(tuple(float(edge) for edge in edges), whole=True, missing=missing)


def equal_bins(low: float, high: float, count: int, *, missing: bool | None = None) -> Bins:
    """Return `count` bins of equal width from `low` to `high`.

    Raises:
        ValueError: If `count` is below 1 or the range is empty.
    """
    if count < 1 or not low < high:
        raise ValueError(f"low is {low}, high {high} and {count} bins; give low < high and at least 1 bin")
    return Bins(tuple(np.linspace(low, high, count + 1).tolist()), missing=missing)


def domain_to_json(domain: Domain) -> dict[str, Any]:
    """Return a domain as JSON-ready data."""
    if isinstance(domain, Categories):
        return {"categories": list(domain.values), "missing": domain.missing}
    return {"edges": list(domain.edges), "whole": domain.whole, "missing": domain.missing}


def domain_from_json(found: dict[str, Any]) -> Domain:
    """Return the domain that `domain_to_json` wrote."""
    if "categories" in found:
        return Categories(*found["categories"], missing=found["missing"])
    edges: Sequence[float] = found["edges"]
    return Bins(tuple(edges), whole=found["whole"], missing=found["missing"])
