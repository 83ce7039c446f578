"""Limits on the mean of values of which only the range is known."""

import math

import numpy as np
import numpy.typing as npt

from auditor.statistics.intervals import check_open_unit

BOLDEST = 0.9  # share of its wealth that a bettor may lose at once; any below 1 is sound


def bounded_mean(values: npt.ArrayLike, *, bounds: tuple[float, float], error: float) -> tuple[float, float, float]:
    """Return (mean, lower, upper) of independent values of which nothing is known but their range.

    A bettor against each candidate mean grows rich if it is wrong; what has not made either of two bettors 2 / error
    times as rich stays in. Nothing is assumed about the shape, so a few large values among many small ones are covered.

    Args:
        values: (n,) within `bounds`, in an order that has nothing to do with them.
        bounds: Least and largest value there can be.
        error: Total error in (0, 1), both sides together.

    Raises:
        ValueError: If there is no value, one lies outside the bounds, or the error is out of range.

    Examples:
        >>> mean, low, high = bounded_mean([0.4, 0.6] * 50, bounds=(0.0, 1.0), error=0.05)
        >>> low < mean < high
        True

    Source: Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting", theorem 3 with the
    predictable plug-in for a fixed number of values.
    """
    check_open_unit(error, name="error")
    given = np.asarray(values, dtype=np.float64)
    least, most = bounds
    if not given.size or not ((given >= least - 1e-9) & (given <= most + 1e-9)).all():
        raise ValueError(f"{given.size} values do not all lie within {bounds}; give at least one, and their true range")
    x = np.clip((given - least) / (most - least), 0, 1)
    n = len(x)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(x)) / (counts + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (counts + 1)
    bets = np.sqrt(2 * math.log(2 / error) / (n * np.concatenate([[0.25], variances[:-1]])))
    cells = 2000
    low, high = 1.0, 0.0
    for block in np.array_split(np.arange(cells + 1) / cells, max(1, n * cells // 2**22)):
        m = block[:, None]
        with np.errstate(divide="ignore"):
            up = np.log1p(np.minimum(bets, BOLDEST / m) * (x - m)).cumsum(axis=1)
            down = np.log1p(-np.minimum(bets, BOLDEST / (1 - m)) * (x - m)).cumsum(axis=1)
        wealth = np.maximum(up, down).max(axis=1) - math.log(2)
        kept = block[wealth < math.log(1 / error)]
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    mean = float(x.mean())
    low, high = max(min(low - 1 / cells, mean), 0.0), min(max(high + 1 / cells, mean), 1.0)  # whole cells, outwards
    scaled = [least + (most - least) * part for part in (mean, low, high)]
    return scaled[0], scaled[1], scaled[2]
