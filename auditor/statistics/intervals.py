"""Confidence limits that hold at finite sample sizes: the arithmetic under measures and bounds on epsilon."""

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from defenses.records import BoolArray

Float64Array = npt.NDArray[np.float64]

# Below this many expected discordant units (or units on the smaller side) normal approximations of the AUC fail.
_FEW_DISCORDANT = 5
_FEW_UNITS = 15


def check_open_unit(value: float, *, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1; raise ValueError naming it otherwise."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie strictly between 0 and 1, for example 0.95 or 0.01")
    return float(value)


def check_scores(scores: npt.ArrayLike, members: npt.ArrayLike) -> tuple[Float64Array, BoolArray]:
    """Return scores (n,) as float64 and their membership bits (n,) as bool.

    Raises:
        ValueError: If shapes differ, bits are neither boolean nor 0 and 1, or a score is NaN. Infinite scores are fine:
            every statistic here uses ranks only.
    """
    values = np.asarray(scores, dtype=np.float64)
    bits: npt.NDArray[Any] = np.asarray(members)
    if values.ndim != 1 or values.shape != bits.shape:
        raise ValueError(
            f"scores have shape {values.shape} and membership bits {bits.shape}; give one of each per record"
        )
    if bits.dtype != np.bool_:
        if not np.isin(bits, (0, 1)).all():
            raise ValueError("membership bits hold values other than 0 and 1; give booleans, true for a member")
        bits = bits.astype(np.bool_)
    missing = np.flatnonzero(np.isnan(values))
    if missing.size:
        raise ValueError(
            f"{missing.size} of {values.size} scores are NaN (the first at position {missing[0]}); "
            "give a number for each record or leave the record out"
        )
    return values, bits


def binomial_lower(successes: npt.ArrayLike, trials: int, *, error: npt.ArrayLike) -> Float64Array:
    """Return the one-sided lower Clopper-Pearson limit of a proportion.

    It is the proportion at which seeing this many successes or more has probability `error`.

    Args:
        successes: Any shape, in 0 .. trials.
        trials: Number of independent trials, at least 1.
        error: Probability in (0, 1) that the limit is above the truth.

    Returns:
        Limits of the shape of `successes`.

    Source: Clopper and Pearson (1934), by the incomplete beta function.
    """
    k = np.asarray(successes, dtype=np.float64)
    inside = np.clip(k, 1, None)
    return np.where(k <= 0, 0.0, special.betaincinv(inside, trials - inside + 1, np.asarray(error, dtype=np.float64)))


def binomial_upper(successes: npt.ArrayLike, trials: int, *, error: npt.ArrayLike) -> Float64Array:
    """Return the one-sided upper Clopper-Pearson limit of a proportion (see `binomial_lower`)."""
    k = np.asarray(successes, dtype=np.float64)
    inside = np.clip(k, None, trials - 1)
    return np.where(
        k >= trials, 1.0, special.betainccinv(inside + 1, trials - inside, np.asarray(error, dtype=np.float64))
    )


def dkw_width(trials: int, *, error: float) -> float:
    """Return the half-width of the uniform band around an empirical distribution function of `trials` draws.

    Two-sided with probability `error`. Source: Dvoretzky, Kiefer and Wolfowitz (1956) with Massart's constant (1990).
    """
    return math.sqrt(math.log(2 / error) / (2 * trials))


def bracketed_tpr(
    members: Float64Array, nonmembers: Float64Array, fpr: npt.ArrayLike, *, error: float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return (estimate, lower, upper) of the true-positive rate at each false-positive rate.

    Let t be the smallest threshold that at most a share `fpr` of the non-member *distribution* exceeds. If k of the
    non-members lie above t, then t lies between two neighbouring order statistics, and the members beyond those bracket
    the number of members above t. A rate is rejected only if for every k either k is too far out for a binomial with
    rate `fpr`, or the members are for one with that rate, or both are together (see `combined_reach`): k is independent
    of the members above t, and nothing is assumed about the scores. Comparisons are strict: ties never raise the rate
    of false positives above its target.

    Args:
        members: (m,) scores, m at least 1, in any order.
        nonmembers: (n,) scores, n at least 1, in any order.
        fpr: Rates in (0, 1), (points,) or a scalar.
        error: Total error in (0, 1) of one interval, half of it on each side.
    """
    rates = np.atleast_1d(np.asarray(fpr, dtype=np.float64))
    m, n = len(members), len(nonmembers)
    ordered = np.sort(members)
    falling = np.concatenate([[np.inf], np.sort(nonmembers)[::-1]])  # falling[k] is the k-th largest; none is above 0
    above = np.append(m - np.searchsorted(ordered, falling, side="right"), m)  # beyond the n-th lie all members
    reach = combined_reach(error / 2)
    rejected = float(special.ndtr(-reach))
    first, middle, last = np.asarray(
        [stats.binom.ppf(share, n, rates) for share in (rejected, 0.5, 1 - rejected)], dtype=np.int64
    )
    low, high = np.empty(rates.shape), np.empty(rates.shape)
    for i, rate in enumerate(rates):
        # At most k non-members at or beyond t: the members above t are at least those above the k-th largest.
        k = np.arange(max(first[i], 0), middle[i] + 1)
        left = _left_over(special.betainc(np.maximum(n - k, 1e-300), k + 1, 1 - float(rate)), reach)
        low[i] = binomial_lower(above[k], m, error=left).min()
        # At least k non-members above t: the members above t are at most those above the (k + 1)-th largest.
        k = np.arange(middle[i], last[i] + 1)
        left = _left_over(special.betainc(np.maximum(k, 1e-300), n - k + 1, float(rate)), reach)
        high[i] = binomial_upper(above[k + 1], m, error=left).max()
    allowed = np.floor(n * rates + 1e-9).astype(np.int64)  # 0.29 * 100 is 28.999...
    shape = np.shape(fpr)
    return (above[allowed + 1] / m).reshape(shape), low.reshape(shape), high.reshape(shape)


def combined_reach(error: float) -> float:
    """Return the radius beyond which two independent p-values, as normal deviates, lie with probability `error`.

    With z = max(0, -Phi^-1(p)), P(z1^2 + z2^2 >= r^2) = Phi(-r) + exp(-r^2 / 2) / 4. Against half of the error for each
    p-value, this reaches 5% further where one carries all the evidence, and 26% less far where both carry as much.
    """

    def inside(radius: float) -> bool:
        return float(special.ndtr(-radius)) + math.exp(-radius * radius / 2) / 4 > error

    return _edge(40.0, 0.0, lambda radius: not inside(radius))


def _left_over(p: npt.NDArray[Any], reach: float) -> Float64Array:
    """Return the p-value that a second test must fall below where the first has `p`."""
    used = np.clip(-special.ndtri(p), 0, reach)
    return np.asarray(special.ndtr(-np.sqrt(reach**2 - used**2)))


def auc_with_variance(members: Float64Array, nonmembers: Float64Array) -> tuple[float, float]:
    """Return the area under the ROC curve (ties count one half) and DeLong's estimate of its variance.

    Midranks give both in O(n log n). The variance is NaN with fewer than two units on a side.

    Source: DeLong, DeLong and Clarke-Pearson (1988); the midrank form of Sun and Xu (2014).
    """
    m, n = len(members), len(nonmembers)
    together = stats.rankdata(np.concatenate([members, nonmembers]))
    beaten = (together[:m] - stats.rankdata(members)) / n  # share of non-members below each member
    beating = 1 - (together[m:] - stats.rankdata(nonmembers)) / m  # share of members above each non-member
    if min(m, n) < 2:
        return float(beaten.mean()), math.nan
    return float(beaten.mean()), float(beaten.var(ddof=1) / m + beating.var(ddof=1) / n)


def auc_interval(
    area: float, variance: float, members: int, nonmembers: int, *, error: float
) -> tuple[float, float, str]:
    """Return (low, high, method) for an AUC, by a method that covers at this area and these sizes.

    DeLong's variance knows the shape of the scores but collapses to zero at an AUC of 0 or 1 and is too small with few
    units; Newcombe's does not collapse but assumes a shape. In the ordinary range we take the wider limit of the two.
    Where few units are discordant, or one side is small, we take the Chernoff-Hoeffding limits: an AUC is an average
    over pairings of means of k = min(members, nonmembers) independent pairs, so P(found beyond a) is at most
    exp(-k KL(a || true)) for every shape of the scores (Hoeffding 1963, section 5). At an AUC of exactly 1 that is the
    Clopper-Pearson limit.
    """
    few = min(members, nonmembers)
    if few < _FEW_UNITS or few * min(area, 1 - area) < _FEW_DISCORDANT or not variance > 0:
        low, high = _chernoff_interval(area, few, error=error)
        return low, high, "Chernoff-Hoeffding interval (few discordant records)"
    z = -float(special.ndtri(error / 2))
    spread = z * math.sqrt(variance) / (area * (1 - area))
    center = float(special.logit(area))
    delong = float(special.expit(center - spread)), float(special.expit(center + spread))
    newcombe = _newcombe_interval(area, members, nonmembers, z=z)
    return min(delong[0], newcombe[0]), max(delong[1], newcombe[1]), "DeLong (logit) interval, Newcombe where wider"


def _newcombe_interval(area: float, members: int, nonmembers: int, *, z: float) -> tuple[float, float]:
    """Return the score-like interval with Hanley and McNeil's variance (Newcombe 2006, part 2, method 5)."""
    pairs = members * nonmembers
    half = (members + nonmembers) / 2 - 1

    def outside(true: float) -> bool:
        variance = true * (1 - true) * (1 + half * (1 - true) / (2 - true) + half * true / (1 + true)) / pairs
        return (true - area) ** 2 > z * z * variance

    return _edge(0.0, area, outside), _edge(1.0, area, outside)


def _chernoff_interval(area: float, pairs: int, *, error: float) -> tuple[float, float]:
    """Return all means whose Kullback-Leibler distance from `area` is at most log(2 / error) / pairs."""
    reach = math.log(2 / error) / pairs

    def outside(true: float) -> bool:
        return float(special.rel_entr(area, true) + special.rel_entr(1 - area, 1 - true)) > reach

    return _edge(0.0, area, outside), _edge(1.0, area, outside)


def _edge(far: float, near: float, outside: Any) -> float:
    """Return where `outside` turns false on the way from `far` to `near`, erring to the far side."""
    for _ in range(60):
        middle = (far + near) / 2
        if outside(middle):
            far = middle
        else:
            near = middle
    return far


def two_rate_limit(
    false_positives: npt.NDArray[Any],
    negatives: int,
    false_negatives: npt.NDArray[Any],
    positives: int,
    *,
    delta: float,
    error: float,
) -> Float64Array:
    """Return the lower limit of epsilon for each pair of error counts, with half the error on each rate.

    The larger of log((TPR - delta) / FPR) and log((TNR - delta) / FNR) at the upper limits of FPR and FNR, at least 0.
    """
    fpr = binomial_upper(false_positives, negatives, error=error / 2)
    fnr = binomial_upper(false_negatives, positives, error=error / 2)
    ratio = np.maximum((1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr)
    return np.log(np.maximum(ratio, 1.0))  # an uninformative test bounds nothing: 0, also where TPR <= delta


@functools.lru_cache(maxsize=4096)  # ceilings recur over attacks and grids
def one_run_limit(canaries: int, guesses: int, correct: int, *, delta: float, error: float) -> float:
    """Return the largest epsilon up to which every value is rejected at `error`, from below to 1e-7.

    Source: Steinke, Nasr and Jagielski (2023), theorem 5.2 and appendix D.
    """
    if correct == 0:
        return 0.0
    # Without the delta term the limit is Clopper-Pearson's, and the term only lowers it. 1 - q in full precision:
    wrong = float(special.betainccinv(guesses - correct + 1, correct, error))
    low, high = 0.0, math.log1p(-wrong) - math.log(wrong)
    if high <= 0 or delta == 0:
        return max(high, 0.0)
    if one_run_p_value(canaries, guesses, correct, delta=delta, epsilon=np.zeros(1))[0] > error:
        return 0.0
    # The first crossing is looked for on a grid that narrows, so that validity does not hang on a monotone p-value.
    while high - low > 1e-7:
        grid = np.linspace(low, high, 17)
        accepted = np.flatnonzero(one_run_p_value(canaries, guesses, correct, delta=delta, epsilon=grid[1:-1]) > error)
        first = int(accepted[0]) + 1 if accepted.size else 16
        low, high = float(grid[first - 1]), float(grid[first])
    return low


def one_run_p_value(canaries: int, guesses: int, correct: int, *, delta: float, epsilon: Float64Array) -> Float64Array:
    """Return an upper bound on P[at least `correct` guesses right] under (epsilon, delta), for each epsilon.

    With W ~ Binomial(guesses, q): P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i. The mean of a unimodal probability
    over a growing window is itself unimodal, so the maximum is found by bisection and m may be in the millions.
    """
    if correct == 0:
        return np.ones(epsilon.shape)
    q = special.expit(epsilon)

    def at_least(count: npt.NDArray[np.int64]) -> Float64Array:
        inside = np.maximum(count, 1)
        return np.where(count <= 0, 1.0, special.betainc(inside, guesses - inside + 1, q))

    tail = at_least(np.full(q.shape, correct))

    def mean(window: npt.NDArray[np.int64]) -> Float64Array:
        return (at_least(correct - window) - tail) / window

    # The best window reaches at least to the mode; starting there also keeps underflow in the far tail out of it.
    low = np.clip(correct - np.floor((guesses + 1) * q).astype(np.int64), 1, correct)
    high = np.full(q.shape, correct)
    while (low < high).any():
        middle = (low + high) // 2
        rising = mean(np.minimum(middle + 1, correct)) > mean(middle)
        low, high = np.where(rising, np.minimum(middle + 1, high), low), np.where(rising, high, middle)
    return np.minimum(tail + 2 * canaries * delta * mean(low), 1.0)
