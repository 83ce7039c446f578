"""A lower bound on epsilon for mechanisms whose trade-off between errors is that of a Gaussian, and that trade-off.

With the shape assumed, two error rates fix the whole curve through its one parameter mu, so that a few hundred trials
reach far into the tail that a small delta speaks of. Where the shape is another, the bound is wrong.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from auditor.epsilon.bound import RUNS_ARE_INDEPENDENT, THRESHOLD_WAS_FIXED, BoundKind, EpsilonBound, check_error_counts
from auditor.epsilon.error_counts import CountMethod
from auditor.statistics.intervals import Float64Array, binomial_upper, check_open_unit
from defenses.guarantee import Neighboring, Unit

GAUSSIAN_SHAPE = (
    "The trade-off between both error rates is Gaussian in shape (mu-GDP); elsewhere, for Laplace noise say, the bound "
    "can exceed the truth."
)
_SMALL_MU = 1.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)  # exact to rounding over intervals of length 1


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon at which a mu-GDP mechanism is (epsilon, delta)-private.

    Solves delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu) for epsilon. The difference is
    taken between Mills ratios and on a log scale, so that it holds for deltas down to 1e-300.

    Args:
        mu: Sensitivity over standard deviation of the Gaussian mechanism, finite, at least 0.
        delta: In (0, 1); at 0 there is no finite epsilon.

    Returns:
        Epsilon in nats, 0 where delta alone allows all of mu.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> round(gaussian_epsilon(1.0, 1e-5), 4)
        4.3772

    Source: Dong, Roth and Su (2022), corollary 2.13; Balle and Wang (2018), theorem 8. How we solve it is ours.
    """
    _check_mu(mu)
    _check_positive_delta(delta)
    if delta >= special.erf(mu / math.sqrt(8)):  # 2 Phi(mu / 2) - 1, the delta at epsilon 0
        return 0.0
    target, tail = math.log(delta), -float(special.ndtri(delta))  # delta is below Phi(-x), so x is below `tail`
    if _log_delta(-mu / 2, mu) <= target:
        return 0.0
    x = optimize.brentq(lambda x: _log_delta(x, mu) - target, -mu / 2, tail + 1, xtol=1e-15, rtol=1e-15)
    return max(mu * (float(x) + mu / 2), 0.0)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu at which a mu-GDP mechanism is (epsilon, delta)-private.

    The inverse of `gaussian_epsilon` in its first argument; one over it is the noise multiplier that one release of
    sensitivity 1 needs.

    Args:
        epsilon: In nats, finite, at least 0.
        delta: In (0, 1).

    Returns:
        mu, above 0.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> round(gaussian_mu(1.0, 1e-5), 4)
        0.2681

    Source: Balle and Wang (2018), algorithm 1, solved as in `gaussian_epsilon`.
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon is {epsilon}; it must be finite and at least 0, for example 1.0")
    _check_positive_delta(delta)
    if epsilon == 0:
        return math.sqrt(8) * float(special.erfinv(delta))
    target, tail = math.log(delta), -float(special.ndtri(delta))
    root = math.sqrt(tail * tail + 2 * epsilon)
    # Delta is below Phi(-x): the mu at which x is `tail` is too small, and a little less is so in spite of rounding.
    low = 0.99 * (2 * epsilon / (tail + root) if tail > 0 else root - tail)
    high = 2 * low

    def excess(mu: float) -> float:
        return _log_delta(epsilon / mu - mu / 2, mu) - target

    while excess(high) < 0:
        high *= 2
    return float(optimize.brentq(excess, low, high, xtol=1e-300, rtol=1e-15))


def mu_limit(
    false_positives: npt.ArrayLike,
    negatives: int,
    false_negatives: npt.ArrayLike,
    positives: int,
    *,
    error: float,
) -> Float64Array:
    """Return the lower limit of mu for each pair of error counts, with half the error on each rate.

    mu = Phi^-1(1 - FPR) - Phi^-1(FNR) at the upper Clopper-Pearson limits of FPR and FNR, at least 0.

    Args:
        false_positives: Any shape, in 0 .. negatives.
        negatives: Independent trials without the record, at least 1.
        false_negatives: Same shape, in 0 .. positives.
        positives: Independent trials with the record, at least 1.
        error: Probability in (0, 1) that a limit is above the truth, if the trade-off is Gaussian.

    Examples:
        >>> float(mu_limit(0, 1000, 0, 1000, error=0.05).round(2))
        5.36

    Source: Dong, Roth and Su (2022) for the Gaussian trade-off; limits as in Nasr et al. (2023).
    """
    fpr = binomial_upper(false_positives, negatives, error=error / 2)
    fnr = binomial_upper(false_negatives, positives, error=error / 2)
    return np.maximum(-special.ndtri(fpr) - special.ndtri(fnr), 0.0)


def gaussian_dp(
    false_positives: int,
    negatives: int,
    false_negatives: int,
    positives: int,
    *,
    delta: float,
    confidence: float,
    neighboring: Neighboring = Neighboring.ADD_REMOVE,
    unit: Unit = Unit.RECORD,
) -> EpsilonBound:
    """Bound epsilon from the errors of a membership test, if the mechanism trades them like a Gaussian.

    A lower limit on mu (see `mu_limit`) is read off as epsilon at delta (see `gaussian_epsilon`).

    Args:
        false_positives: Trials without the record that were called "in", 0 .. negatives.
        negatives: Independent trials without the record, at least 1.
        false_negatives: Trials with the record that were called "out", 0 .. positives.
        positives: Independent trials with the record, at least 1.
        delta: In (0, 1).
        confidence: In (0, 1).
        neighboring: Which two data sets the trials were run on.
        unit: What they differ in.

    Returns:
        The bound; its assumptions name the shape that it takes for granted.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(gaussian_dp(150, 1000, 150, 1000, delta=1e-5, confidence=0.95).lower, 2)
        9.26

    Source: Nasr et al. (2023), "Tight auditing of differentially private machine learning", with the error split
    between both rates.
    """
    check_error_counts(false_positives, negatives, false_negatives, positives)
    _check_positive_delta(delta)
    error = 1 - check_open_unit(confidence, name="confidence")
    shown = float(mu_limit(false_positives, negatives, false_negatives, positives, error=error))
    most = float(mu_limit(0, negatives, 0, positives, error=error))
    lower = gaussian_epsilon(shown, delta)
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=neighboring,
        unit=unit,
        confidence=confidence,
        method="Gaussian trade-off through Clopper-Pearson limits on both error rates",
        kind=BoundKind.CONFIDENCE,
        assumptions=(
            RUNS_ARE_INDEPENDENT,
            THRESHOLD_WAS_FIXED,
            GAUSSIAN_SHAPE,
        ),
        ceiling=max(lower, gaussian_epsilon(most, delta)),
    )


def _rank(
    false_positives: npt.NDArray[Any],
    negatives: int,
    false_negatives: npt.NDArray[Any],
    positives: int,
    /,
    *,
    delta: float,  # epsilon rises with mu at every delta
    error: float,
) -> Float64Array:
    return mu_limit(false_positives, negatives, false_negatives, positives, error=error)


GAUSSIAN = CountMethod("the Gaussian bound", bound=gaussian_dp, rank=_rank)


def _log_delta(x: float, mu: float) -> float:
    """Return log delta of a mu-GDP mechanism at epsilon = mu (x + mu / 2), for x at least -mu / 2.

    With the Mills ratio M(t) = Phi(-t) / phi(t), e^epsilon Phi(-x - mu) = phi(x) M(x + mu): both terms of delta share
    the factor phi(x), which is taken out, and with it all that under- or overflows.
    """
    if mu < _SMALL_MU:  # the integral of -M'(t) = 1 - t M(t) loses nothing where M(x) and M(x + mu) are close
        t = x + mu / 2 * (_NODES + 1)
        difference = mu / 2 * float(_WEIGHTS @ (1 - t * _mills(t)))
    elif x < 0:  # M(x) grows like 1 / phi(x); epsilon is below mu^2 / 2 and no term of delta is small
        return math.log(float(special.ndtr(-x)) - math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * float(_mills(x + mu)))
    else:
        difference = float(_mills(x) - _mills(x + mu))
    return math.log(difference) - x * x / 2 - math.log(2 * math.pi) / 2


def _mills(t: float | Float64Array) -> Any:
    return math.sqrt(math.pi / 2) * special.erfcx(np.asarray(t) / math.sqrt(2))


def _check_mu(mu: float) -> None:
    if not 0 <= mu < math.inf:
        raise ValueError(f"mu is {mu}; it must be finite and at least 0, for example 1.0")


def _check_positive_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(
            f"delta is {delta}; it must lie in (0, 1), for example 1e-5: at delta 0 a Gaussian has no finite epsilon"
        )
