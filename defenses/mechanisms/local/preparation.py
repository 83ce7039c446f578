"""Preparation of raw records: format checks, missing values, and statistics to standardise by, gathered in one pass.

A mean over raw records is a query about them. It is free only over public records; over private ones it is charged
(`clipped_statistics`), or the guarantee is gone (`raw_statistics`, what the paper's text does).
"""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

# A feature that varies less than this, relative to its size, counts as constant: it is shifted, not scaled.
CONSTANT = 1e-6
# Least standard deviation that a noisy estimate may have, as a share of the public half-range.
LEAST_DEVIATION = 0.05


class Missing(enum.StrEnum):
    """What happens to a record with missing values (NaN)."""

    IMPUTE = "impute"  # by the mean, the same for everybody, so that noise hides what was missing
    DROP = "drop"  # the record is left out: that it was incomplete becomes public
    REFUSE = "refuse"


@dataclass(frozen=True, eq=False)
class Standardisation:
    """What features are shifted and scaled by.

    Attributes:
        shift: (d,) subtracted; also what missing values become.
        scale: (d,) divided by, above 0.
        origin: Where the figures come from, in words.
        epsilon: What they cost under replacement of one record, in nats; infinity for raw statistics.

    Raises:
        ValueError: If shapes differ, or a value is not finite, or a scale not above 0.
    """

    shift: Float64Array
    scale: Float64Array
    origin: str
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(f"shift is {self.shift.shape} and scale {self.scale.shape}; give one of each per feature")
        if not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("a shift is not finite, or a scale not above 0; check the columns")
        check_epsilon(self.epsilon, "epsilon of the statistics", least=0.0)

    def __len__(self) -> int:
        return len(self.shift)

    def apply_to(self, x: Float64Array) -> Float64Array:
        """Return (x - shift) / scale with 0, the mean, where a value is missing."""
        standard: Float64Array = (x - self.shift) / self.scale
        return np.where(np.isnan(standard), 0.0, standard)


def check_rows(x: npt.ArrayLike, *, features: int | None = None) -> Float64Array:
    """Return records as (n, d) float64, NaN where a value is missing.

    Args:
        x: (n, d) numbers.
        features: How many columns there must be.

    Raises:
        ValueError: If it is not a table of numbers, has another number of columns, or holds an infinite value.
    """
    try:
        rows = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"records hold something that is not a number ({error}); encode categories as numbers first"
        ) from error
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise ValueError(f"records have shape {rows.shape}; give (records, features), images flattened")
    if features is not None and rows.shape[1] != features:
        raise ValueError(f"records have {rows.shape[1]} features; {features} are expected, in a fixed order")
    if np.isinf(rows).any():
        row, column = (int(place[0]) for place in np.nonzero(np.isinf(rows)))
        raise ValueError(f"record {row} has an infinite value in feature {column}; correct it, or make it NaN: missing")
    return rows


def without_missing(
    rows: Float64Array, labels: npt.NDArray[Any] | None, missing: Missing
) -> tuple[Float64Array, npt.NDArray[Any] | None]:
    """Return the rows and labels that stay; under `IMPUTE` all of them do.

    Raises:
        ValueError: If a value is missing and that is refused.
    """
    incomplete = np.isnan(rows).any(axis=1)
    if missing is Missing.IMPUTE or not incomplete.any():
        return rows, labels
    if missing is Missing.REFUSE:
        raise ValueError(
            f"{int(incomplete.sum())} of {len(rows)} records have missing values; impute or drop them (`missing`)"
        )
    return rows[~incomplete], None if labels is None else labels[~incomplete]


def public_statistics(x: npt.ArrayLike) -> Standardisation:
    """Return mean and standard deviation of public records; missing values are left out.

    Args:
        x: (p, d) public records.

    Raises:
        ValueError: If there are none, or a column holds nothing at all.

    Examples:
        >>> public_statistics([[0.0, 1.0], [2.0, 1.0]]).scale
        array([1., 1.])
    """
    return _moments([x], "public records", epsilon=0.0)


def raw_statistics(chunks: Iterable[npt.ArrayLike]) -> Standardisation:
    """Return mean and standard deviation of private records without any noise, as the paper's text does.

    It is an exact answer about them, so nothing that is standardised by it has a guarantee.

    Args:
        chunks: Parts (n_i, d) of the records, read once.

    Raises:
        ValueError: If there are none, or a column holds nothing at all.
    """
    return _moments(chunks, "the raw records themselves, uncharged", epsilon=math.inf)


def clipped_statistics(
    chunks: Iterable[npt.ArrayLike],
    *,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    epsilon: float,
    rng: np.random.Generator | None = None,
) -> Standardisation:
    """Return noisy mean and standard deviation of private records, clipped to a public range.

    With h half the range and c its middle, replacing a record moves the sum of x - c by at most 2h and the sum of
    (x - c)^2 by at most h^2. Each of these 2 d sums gets Laplace noise at epsilon / (2 d). Missing values count as the
    middle, so their number stays hidden, but for a column without any value, which is an error. Whoever calls this
    holds all the records: it is no local mechanism.

    Args:
        chunks: Parts (n_i, d) of the records, read once; their number n is public.
        low: (d,) or one number, the lowest value that a feature can have.
        high: (d,) or one number, above `low`.
        epsilon: What the statistics may cost, above 0.
        rng: Source of the noise; None takes one that is seeded by the operating system.

    Raises:
        ValueError: If there are no records, or a range or epsilon is out of order.

    Source: Dwork et al. 2006, "Calibrating Noise to Sensitivity in Private Data Analysis".
    """
    check_epsilon(epsilon, "epsilon of the statistics")
    bottom, top = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if not (np.isfinite(bottom).all() and np.isfinite(top).all() and (bottom < top).all()):
        raise ValueError(f"low is {bottom} and high {top}; give a finite public range with low below high")
    middle, half = (bottom + top) / 2, (top - bottom) / 2
    count, known, sums, squares = 0, np.zeros(0), np.zeros(0), np.zeros(0)
    for chunk in chunks:
        rows = check_rows(chunk, features=len(sums) or None)
        if not len(sums):
            known, sums, squares = (np.zeros(rows.shape[1]) for _ in range(3))
            middle, half = np.broadcast_to(middle, sums.shape), np.broadcast_to(half, sums.shape)
        centred = np.where(np.isnan(rows), 0.0, np.clip(rows, bottom, top) - middle)
        count, known = count + len(rows), known + (~np.isnan(rows)).sum(0)
        sums, squares = sums + centred.sum(0), squares + np.square(centred).sum(0)
    _check_known(known)
    drawn, features = rng or fresh_rng(), len(sums)
    each = 2 * features / epsilon
    mean = np.clip((sums + drawn.laplace(scale=2 * half * each)) / count, -half, half)
    variance = (squares + drawn.laplace(scale=np.square(half) * each)) / count - np.square(mean)
    deviation = np.sqrt(np.clip(variance, np.square(LEAST_DEVIATION * half), np.square(half)))
    return Standardisation(middle + mean, deviation, f"private records, clipped, at epsilon {epsilon:g}", epsilon)


def check_epsilon(epsilon: float, name: str, *, least: float | None = None) -> float:
    """Return epsilon, or raise ValueError unless it is above 0 and finite (or at least `least`, infinity allowed)."""
    if least is None and not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"{name} is {epsilon}; it must be above 0 and finite (leave it out for no noise)")
    if least is not None and not epsilon >= least:
        raise ValueError(f"{name} is {epsilon}; it must be at least {least:g}")
    return epsilon


def fresh_rng() -> np.random.Generator:
    """Return a generator that is seeded by the operating system: nobody can draw the same noise again."""
    return np.random.Generator(np.random.Philox())


def _moments(chunks: Iterable[npt.ArrayLike], origin: str, *, epsilon: float) -> Standardisation:
    """Return mean and deviation, merging chunk by chunk (Chan, Golub and LeVeque 1983)."""
    count, mean, squares = np.zeros(0), np.zeros(0), np.zeros(0)
    for chunk in chunks:
        rows = check_rows(chunk, features=len(count) or None)
        if not len(count):
            count, mean, squares = (np.zeros(rows.shape[1]) for _ in range(3))
        known = ~np.isnan(rows)
        own = known.sum(0)
        filled = np.where(known, rows, 0.0)
        centre = filled.sum(0) / np.maximum(own, 1)
        gap, both = np.where(own > 0, centre - mean, 0.0), np.maximum(count + own, 1)
        squares = squares + (known * np.square(filled - centre)).sum(0) + np.square(gap) * count * own / both
        mean, count = mean + gap * own / both, count + own
    _check_known(count)
    deviation = np.sqrt(squares / count)
    constant = deviation <= CONSTANT * np.maximum(1.0, np.abs(mean))
    return Standardisation(mean, np.where(constant, 1.0, deviation), origin, epsilon)


def _check_known(known: Float64Array) -> None:
    """Raise ValueError unless every feature (d,) is known of some record."""
    if not len(known):
        raise ValueError("there are no records to take statistics of; give at least one")
    if not (known > 0).all():
        column = int(np.flatnonzero(known == 0)[0])
        raise ValueError(f"feature {column} is missing in all records; leave the column out")
