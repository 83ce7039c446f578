"""Differences of two shares with intervals that cover at any number of records."""

import math

import numpy as np

from auditor.statistics import membership
from auditor.statistics.intervals import Float64Array, binomial_lower, binomial_upper, check_open_unit
from reports.records.report import Estimate

Interval = tuple[float, float, float]  # value, low, high

PAIRED = "Clopper-Pearson on both kinds of disagreement, the error shared"
BERNSTEIN = "empirical Bernstein over groups"


def paired_difference(first: Float64Array, second: Float64Array, *, level: float) -> tuple[Interval, str]:
    """Bound mean(first) - mean(second) over independent units that answer both.

    Where every value is 0 or 1, only units on which the two disagree count: the difference is the share on which the
    first alone is right less that on which the second alone is, and each share has a Clopper-Pearson interval with half
    the error. Otherwise (a unit is a group, and holds shares) an empirical Bernstein bound on the differences.

    Args:
        first: (n,) in [0, 1], n at least 1.
        second: (n,) in [0, 1].
        level: Confidence in (0, 1).

    Returns:
        (value, low, high) in [-1, 1], and the method.

    Raises:
        ValueError: If shapes differ, there is no unit, or a value is out of range.

    Examples:
        >>> (value, low, high), _ = paired_difference(np.ones(50), np.zeros(50), level=0.95)
        >>> value, round(low, 2), high
        (1.0, 0.84, 1.0)

    Source: Maurer and Pontil 2009, theorem 4, for the groups.
    """
    error = 1 - check_open_unit(level, name="level")
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"values have shapes {first.shape} and {second.shape}; give (n,) each, n at least 1")
    if min(first.min(), second.min()) < 0 or max(first.max(), second.max()) > 1:
        raise ValueError("values lie outside [0, 1]; give shares, or 0 and 1")
    n, differences = len(first), first - second
    value = float(differences.mean())
    if np.isin(differences, (-1, 0, 1)).all():
        sides = [
            (float(binomial_lower(count, n, error=error / 4)), float(binomial_upper(count, n, error=error / 4)))
            for count in (int((differences > 0).sum()), int((differences < 0).sum()))
        ]
        (low, high), (other_low, other_high) = sides
        return (value, max(low - other_high, -1.0), min(high - other_low, 1.0)), PAIRED
    if n < 2:
        return (value, -1.0, 1.0), BERNSTEIN
    logs = math.log(4 / error)  # two sides
    width = math.sqrt(2 * float(differences.var(ddof=1)) * logs / n) + 2 * 7 * logs / (3 * (n - 1))
    return (value, max(value - width, -1.0), min(value + width, 1.0)), BERNSTEIN


def paired_estimate(first: Float64Array, second: Float64Array, *, level: float, unit: str) -> Estimate:
    """Return `paired_difference` as an estimate, or a reason where there is no unit."""
    if not len(first):
        return Estimate(method=PAIRED, level=level, n=0, unit=unit, reason=f"no {unit} to compare on")
    (value, low, high), method = paired_difference(first, second, level=level)
    return Estimate(value=value, low=low, high=high, level=level, method=method, n=len(first), unit=unit)


def share_estimate(values: Float64Array, *, level: float, unit: str) -> Estimate:
    """Return the mean of shares as an estimate: Clopper-Pearson where each is 0 or 1, else empirical Bernstein.

    Args:
        values: (n,) in [0, 1], one for each independent unit.
        level: Confidence in (0, 1).
        unit: What a unit is called.
    """
    if len(values) and np.isin(values, (0, 1)).all():
        return membership.rate(int(values.sum()), len(values), level=level, unit=unit)
    found = paired_estimate(values, np.zeros(len(values)), level=level, unit=unit)
    if found.low is None:
        return found
    return found.model_copy(update={"low": max(found.low, 0.0)})


def gap(one: Estimate, other: Estimate, *, level: float) -> Estimate:
    """Return the difference of two independent estimates, each of whose intervals has half of the error.

    Args:
        one: With an interval at (1 + level) / 2.
        other: The same, of other units.
        level: Confidence of the result.
    """
    n, unit = (one.n or 0) + (other.n or 0), one.unit
    for missing in (one, other):
        if missing.value is None:
            return Estimate(method=missing.method, level=level, n=n, unit=unit, reason=missing.reason)
    assert one.value is not None
    assert one.low is not None
    assert one.high is not None
    assert other.value is not None
    assert other.low is not None
    assert other.high is not None
    return Estimate(
        value=one.value - other.value,
        low=one.low - other.high,
        high=one.high - other.low,
        level=level,
        method=f"{one.method}; difference of two intervals that share the error",
        n=n,
        unit=unit,
    )
