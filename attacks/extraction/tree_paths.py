"""Path finding: every leaf of a decision tree and its box, from nothing but which leaf answers a record."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.records import BoolArray, IntArray

Float64Array = npt.NDArray[np.float64]
Query = Callable[[Float64Array], npt.NDArray[Any]]

_DOUBTS = "some leaves give the same answer, or are thinner than the tolerance"


@dataclass(frozen=True)
class Continuous:
    """A feature with a public range: low below high, both finite."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"the range is {self.low} to {self.high}; give finite numbers, low below high")


@dataclass(frozen=True)
class Categorical:
    """A feature with values 0 .. values - 1 in no order; at least 1."""

    values: int

    def __post_init__(self) -> None:
        if self.values < 1:
            raise ValueError(f"there are {self.values} categories; a feature needs at least 1")


Feature = Continuous | Categorical


@dataclass(frozen=True)
class Leaves:
    """The leaves that were found: a copy of the tree, as far as it goes.

    Attributes:
        features: What records are.
        answers: (l, ...) what the target says at each leaf.
        low: (l, f) bound below which a leaf does not answer; exclusive, except at the end of the public range.
        high: (l, f) bound above which it does not; inclusive.
        allowed: (l, f, v) bool, which categories it answers for; all for a continuous feature.
        queries: Records that the target answered.
        coverage: Volume of all boxes as a share of the public range; 1 where nothing is missing or counted twice.
        shortfall: Why this is not the whole tree, or empty where it is.
    """

    features: tuple[Feature, ...]
    answers: npt.NDArray[Any]
    low: Float64Array
    high: Float64Array
    allowed: npt.NDArray[np.bool_]
    queries: int
    coverage: float
    shortfall: str

    @property
    def complete(self) -> bool:
        """Whether this is the whole tree, to the tolerance."""
        return not self.shortfall

    def predict(self, x: npt.NDArray[Any]) -> IntArray:
        """Return the number of the leaf (n,) that answers each record (n, f), -1 for a leaf that was not found.

        What lies outside the public range counts as its nearest end. Raises ValueError for what is no such record.
        """
        if x.ndim != 2 or x.shape[1] != len(self.features) or not np.isfinite(x).all():
            raise ValueError(f"records are {x.shape}; they must be (n, {len(self.features)}) and finite")
        least, most = _ends(self.features)
        inside = np.clip(x.astype(np.float64), least, most)
        above = np.where(self.low > least, np.nextafter(self.low, np.inf), self.low)
        found = np.full(len(x), -1)
        for leaf, allowed in enumerate(self.allowed):
            found[_holds(inside, above[leaf], self.high[leaf], allowed)] = leaf
        return found

    def thresholds(self, feature: int) -> Float64Array:
        """Return where the tree splits a continuous feature, ascending; a split may appear as several close ones."""
        low, high = _ends(self.features)
        both = np.concatenate([self.low[:, feature], self.high[:, feature]])
        return np.unique(both[(both > low[feature]) & (both < high[feature])])


def find_leaves(
    query: Query, features: Sequence[Feature], *, tolerance: float = 1e-6, budget: int = 100_000, checks: int = 100
) -> Leaves:
    """Find every leaf of a decision tree and the box of records that it answers for.

    From one record of a leaf, each feature alone is moved to both ends of its range: where another leaf answers there,
    bisection finds the bound, and the record just beyond it is the first of a leaf to be looked at next. A leaf is a
    box: all between two of its records is in it. Known thresholds are tried first, known boxes are not asked about.

    Args:
        query: From records (n, f) to answers (n,) or (n, k) that differ from leaf to leaf, such as confidences.
        features: What each of the f columns can be; a category is its number.
        tolerance: Largest error of a bound, a share of the range in (0, 1); thinner leaves may be missed.
        budget: Most records that may be asked about, at least 1.
        checks: Of these, records from the whole range (always the same) that the leaves must predict, at least 0.

    Returns:
        The leaves; `shortfall` says where the budget did not suffice, or where leaves share an answer, so that the
        boxes do not fill the range exactly once, or a check is answered by another leaf.

    Raises:
        ValueError: If an argument is out of range, or answers are not one finite row per record.

    Examples:
        >>> leaves = find_leaves(lambda x: x[:, 0] > 0.25, [Continuous(0, 1)])
        >>> leaves.thresholds(0).round(6), leaves.queries
        (array([0.25]), 122)

    Source: Tramer et al. 2016, "Stealing Machine Learning Models via Prediction APIs", section 4.2, algorithm 1.
    Deviations: on a line only the bounds of a leaf are searched, as what lies further is the neighbour of a neighbour;
    what is known is not asked again; volume and checks show whether a leaf is missing.
    """
    if not features:
        raise ValueError("features is empty; a tree splits on at least one feature")
    if not 0 < tolerance < 1 or budget < 1 or checks < 0:
        raise ValueError(f"tolerance {tolerance} must be a share in (0, 1), budget {budget} >= 1, checks {checks} >= 0")
    search = _Search(query, tuple(features), tolerance, budget)
    try:
        search.run()
        wrong = search.check(checks)
    except _SpentError:
        return search.leaves(f"the budget of {budget:,} queries is too small: {len(search.boxes)} leaves were found")
    return search.leaves(f"{wrong} of {checks} checks are answered by another leaf: {_DOUBTS}" if wrong else "")


class _SpentError(Exception):
    """The next question would exceed the budget."""


@dataclass(frozen=True)
class _Box:
    """A leaf: the part of it that is known to be inside, and its bounds as far as they are known."""

    answer: bytes
    inner: Float64Array  # (2, f) least and greatest value known to be inside
    bounds: Float64Array  # (2, f) halfway between the last inside and the first outside
    allowed: BoolArray  # (f, v)


class _Search:
    def __init__(self, query: Query, features: tuple[Feature, ...], tolerance: float, budget: int) -> None:
        self.query, self.features, self.budget, self.spent = query, features, budget, 0
        self.low, self.high = _ends(features)
        self.share, self.tolerance = tolerance, tolerance * (self.high - self.low)
        self.is_continuous = np.array([isinstance(feature, Continuous) for feature in features])
        self.continuous = np.flatnonzero(self.is_continuous).tolist()
        self.values = [feature.values if isinstance(feature, Categorical) else 1 for feature in features]
        self.boxes: list[_Box] = []
        self.said: dict[bytes, bytes] = {}  # record -> answer
        self.answers: dict[bytes, npt.NDArray[Any]] = {}
        self.cuts: list[list[float]] = [[] for _ in features]  # both sides of every bound, ascending

    def run(self) -> None:
        """Look at leaves until no neighbour is new."""
        start = np.array([(f.low + f.high) / 2 if isinstance(f, Continuous) else 0.0 for f in self.features])
        waiting = [(start, self._ask([start], [])[0])]
        while waiting:
            x, answer = waiting.pop()
            if not self._known(x, answer):
                waiting += self._explore(x, answer)

    def check(self, count: int) -> int:
        """Return how many of so many records from the whole range are answered by a leaf whose box holds them not."""
        spread = np.random.default_rng(0).random((count, len(self.features)))
        x = np.where(self.is_continuous, self.low + spread * (self.high - self.low), np.floor(spread * self.values))
        return sum(not self._known(row, answer) for row, answer in zip(x, self._ask(list(x), []), strict=True))

    def _known(self, x: Float64Array, answer: bytes) -> bool:
        """Return whether a leaf with this answer holds a record (f,), as far as bounds are known."""
        slack, own = self.tolerance, (box for box in self.boxes if box.answer == answer)
        return any(_holds(x[None], box.bounds[0] - slack, box.bounds[1] + slack, box.allowed)[0] for box in own)

    def _ask(self, rows: Sequence[Float64Array], near: Sequence[_Box]) -> list[bytes]:
        """Return the answers to records, from the target only where no box that is near tells."""
        found: list[bytes | None] = [self.said.get(row.tobytes()) for row in rows]
        if near and rows:
            missed: BoolArray = np.asarray(_missed_by(near, np.array(rows)).any(axis=2))
            for i in np.flatnonzero(~missed.all(axis=0)):
                found[i] = near[int(missed[:, i].argmin())].answer
        unknown = [row for row, one in zip(rows, found, strict=True) if one is None]
        if self.spent + len(unknown) > self.budget:
            raise _SpentError
        self.spent += len(unknown)
        for row, answer in zip(unknown, _checked(self.query, unknown), strict=True):
            self.said[row.tobytes()] = answer.tobytes()
            self.answers[answer.tobytes()] = answer
        return [self.said[row.tobytes()] if one is None else one for row, one in zip(rows, found, strict=True)]

    def _explore(self, x: Float64Array, answer: bytes) -> list[tuple[Float64Array, bytes]]:
        """Find the box around a record, keep it, and return a record of every leaf beyond its faces."""
        # What is asked differs from x in one feature, so only boxes that x misses by at most one can tell.
        missed = _missed_by(self.boxes, x[None]).sum(axis=(1, 2)) if self.boxes else []
        near = [box for box, by in zip(self.boxes, missed, strict=True) if by <= 1]
        outer = np.stack([self.low, self.high])
        inner = np.where(self.is_continuous, x, outer)
        allowed = np.ones((len(x), max(self.values)), dtype=np.bool_)
        beyond: list[tuple[Float64Array, bytes]] = []
        others = [(j, v) for j, count in enumerate(self.values) for v in range(count) if count > 1 and v != x[j]]
        moved = [_with(x, j, v) for j, v in others]
        for (j, v), row, other in zip(others, moved, self._ask(moved, near), strict=True):
            allowed[j, v] = other == answer
            if other != answer:
                beyond.append((row, other))
        across: dict[tuple[int, int], bytes] = {}  # per feature and side, what answers at the nearest value outside
        faces = [(j, side) for j in self.continuous for side in (0, 1)]
        while faces:
            asked = [(j, s, self._probe(j, inner[s, j], outer[s, j], (j, s) in across)) for j, s in faces]
            probes = [(j, side, probe) for j, side, probe in asked if probe is not None]
            said = self._ask([_with(x, j, probe) for j, _, probe in probes], near)
            for (j, side, probe), other in zip(probes, said, strict=True):
                if other == answer:
                    inner[side, j] = probe
                else:
                    outer[side, j], across[j, side] = probe, other
            faces = [(j, side) for j, side, _ in probes]
        for (j, side), other in across.items():
            beyond.append((_with(x, j, outer[side, j]), other))
            self.cuts[j] = sorted({*self.cuts[j], float(inner[side, j]), float(outer[side, j])})
        self.boxes.append(_Box(answer, inner, (inner + outer) / 2, allowed))
        return beyond

    def _probe(self, j: int, inside: float, outside: float, seen: bool) -> float | None:
        """Return where to ask next for a bound of feature j, or None where it is known well enough."""
        if not seen:  # the end of the range, of which nothing is known yet
            return None if inside == outside else outside
        low, middle, high = min(inside, outside), (inside + outside) / 2, max(inside, outside)
        if high - low <= self.tolerance[j] or not low < middle < high:
            return None
        first, last = bisect.bisect_right(self.cuts[j], low), bisect.bisect_left(self.cuts[j], high)
        return self.cuts[j][(first + last) // 2] if first < last else middle

    def leaves(self, reason: str) -> Leaves:
        """Return what was found, and what is wrong with it: a reason, or boxes that do not fill the range once."""
        f = len(self.features)
        low, high = (np.array([box.bounds[side] for box in self.boxes]).reshape(-1, f) for side in (0, 1))
        allowed = np.array([box.allowed for box in self.boxes]).reshape(-1, f, max(self.values))
        widths = (high - low) / np.where(self.is_continuous, self.high - self.low, 1)
        for j in np.flatnonzero(~self.is_continuous):
            widths[:, j] = allowed[:, j, : self.values[j]].mean(axis=1)
        volumes = widths.prod(axis=1)
        coverage = float(volumes.sum())
        faces = volumes[:, None] / widths[:, self.is_continuous]  # areas, each as uncertain as a bound
        if not reason and abs(coverage - 1) > self.share * faces.sum() + 1e-9:
            reason = f"the boxes fill {coverage:.6f} of the range, not all of it exactly once: {_DOUBTS}"
        answers = np.array([self.answers[box.answer] for box in self.boxes])
        return Leaves(self.features, answers, low, high, allowed, self.spent, coverage, reason)


def _ends(features: Sequence[Feature]) -> tuple[Float64Array, Float64Array]:
    pairs = [(f.low, f.high) if isinstance(f, Continuous) else (0, f.values - 1) for f in features]
    low, high = np.array(pairs, dtype=np.float64).T
    return low, high


def _with(x: Float64Array, feature: int, value: float) -> Float64Array:
    moved = x.copy()
    moved[feature] = value
    return moved


def _holds(x: Float64Array, low: Float64Array, high: Float64Array, allowed: BoolArray) -> BoolArray:
    """Return which rows (n, f) lie within bounds (f,), both inclusive, in categories that are allowed (f, v)."""
    return np.asarray((~_missed(x, low, high, allowed)).all(axis=1))


def _missed_by(boxes: Sequence[_Box], x: Float64Array) -> BoolArray:
    """Return by which features (b, n, f) rows lie outside what is known to be inside each box."""
    inner = np.array([box.inner for box in boxes])
    return _missed(x, inner[:, 0, None], inner[:, 1, None], np.array([box.allowed for box in boxes]))


def _missed(x: Float64Array, low: Float64Array, high: Float64Array, allowed: BoolArray) -> BoolArray:
    """Return by which features rows lie outside one box, or each of several: see `_holds`, `_missed_by`."""
    codes = np.clip(x, 0, allowed.shape[-1] - 1).astype(np.int64)  # of a continuous feature, whose row is all true
    return np.asarray((x < low) | (x > high) | ~allowed[..., np.arange(x.shape[1]), codes])


def _checked(query: Query, rows: Sequence[Float64Array]) -> npt.NDArray[Any]:
    """Return the target's answers, one zero for both signs; raises ValueError unless each is one finite row."""
    found = np.asarray(query(np.array(rows)) if rows else ())
    if found.ndim not in (1, 2) or len(found) != len(rows):
        raise ValueError(f"{len(rows)} records were answered by an array of shape {found.shape}; give one row for each")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{int((~np.isfinite(found)).sum())} of {found.size} values answered are not finite")
    return found + 0.0 if found.dtype.kind == "f" else found
