"""A credible lower bound on epsilon from the joint posterior of both error rates of a membership test."""

import functools
import math

import numpy as np
from scipy import optimize, special

from auditor.epsilon.bound import (
    RUNS_ARE_INDEPENDENT,
    THRESHOLD_WAS_FIXED,
    BoundKind,
    EpsilonBound,
    check_delta,
    check_error_counts,
)
from auditor.epsilon.error_counts import CountMethod
from auditor.statistics.intervals import Float64Array, check_open_unit, two_rate_limit
from defenses.guarantee import Neighboring, Unit

_DEVIATES = np.linspace(-8.5, 8.5, 35)  # panels of half a standard deviation; what lies beyond weighs 1e-17
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_LARGEST = 700.0  # e^epsilon overflows beyond


def posterior_above(
    epsilon: float, false_positives: int, negatives: int, false_negatives: int, positives: int, *, delta: float
) -> float:
    """Return the posterior probability that the errors of a membership test contradict (epsilon, delta)-privacy.

    FPR and FNR have independent Beta posteriors from Jeffreys priors. They contradict it where FNR < 1 - delta -
    e^epsilon FPR or e^epsilon FNR < 1 - delta - FPR. The density of FPR times the distribution function of FNR at that
    edge is integrated by Gauss-Legendre panels that are cut at the quantiles of both and at the corner of the edge.

    Args:
        epsilon: In nats, at least 0.
        false_positives: Trials without the record that were called "in", 0 .. negatives.
        negatives: Independent trials without the record, at least 1.
        false_negatives: Trials with the record that were called "out", 0 .. positives.
        positives: Independent trials with the record, at least 1.
        delta: In [0, 1).

    Returns:
        A probability, exact to 1e-8 at millions of trials and to 1e-10 at thousands.

    Raises:
        ValueError: If a count or delta is out of range, or epsilon is negative or NaN.

    Examples:
        >>> round(posterior_above(1.0, 20, 100, 20, 100, delta=0.0), 3)
        0.994

    Source: Zanella-Beguelin et al. (2023). They also count tests that are worse than guessing, by the mirror
    image of the region; we do not, or every null audit would show a positive epsilon.
    """
    check_error_counts(false_positives, negatives, false_negatives, positives)
    check_delta(delta)
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; it must be at least 0")
    if epsilon > _LARGEST:
        return 0.0
    growth = math.exp(epsilon)
    fpr = false_positives + 0.5, negatives - false_positives + 0.5
    fnr = false_negatives + 0.5, positives - false_negatives + 0.5
    own, other = _quantiles(*fpr), _quantiles(*fnr)
    corner = (1 - delta) / (1 + growth)
    crossed = np.where(other > corner, (1 - delta - other) / growth, 1 - delta - growth * other)
    cuts = np.clip(np.concatenate([own, crossed, [corner, 1 - delta]]), own[0], own[-1])
    # With x = sin(t)^2 the density has no pole, whatever the counts.
    edges = np.arcsin(np.sqrt(np.unique(cuts)))
    half = np.diff(edges)[:, None] / 2
    t = edges[:-1, None] + half * (_NODES + 1)
    x, rest = np.sin(t) ** 2, np.cos(t) ** 2
    log_density = special.xlogy(false_positives, x) + special.xlogy(negatives - false_positives, rest)
    density = 2 * np.exp(log_density - special.betaln(*fpr))
    edge = np.maximum(np.maximum(1 - delta - growth * x, (rest - delta) / growth), 0)
    return min(float((half * _WEIGHTS * density * special.betainc(*fnr, edge)).sum()), 1.0)


@functools.lru_cache(maxsize=4096)  # ceilings recur over thresholds and attacks
def epsilon_quantile(
    probability: float, false_positives: int, negatives: int, false_negatives: int, positives: int, *, delta: float
) -> float:
    """Return the epsilon that has this posterior probability below it, 0 if a test no better than guessing has.

    An equal-tailed credible interval of level c has the quantiles at (1 - c) / 2 and (1 + c) / 2 as its ends. The other
    arguments are those of `posterior_above`.

    Args:
        probability: In (0, 1).
        false_positives: 0 .. negatives.
        negatives: At least 1.
        false_negatives: 0 .. positives.
        positives: At least 1.
        delta: In [0, 1).

    Examples:
        >>> round(epsilon_quantile(0.05, 20, 100, 20, 100, delta=0.0), 2)
        1.15

    Source: Zanella-Beguelin et al. (2023).
    """
    wanted = 1 - check_open_unit(probability, name="probability")

    def excess(epsilon: float) -> float:
        above = posterior_above(epsilon, false_positives, negatives, false_negatives, positives, delta=delta)
        return above - wanted

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-10))


def joint_credible(
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
    """Bound epsilon with a posterior probability, from the errors of a membership test over independent trials.

    The one-sided lower end: epsilon is above it with posterior probability `confidence`. For the lower end of an
    equal-tailed interval of level c give (1 + c) / 2.

    Args:
        false_positives: Trials without the record that were called "in", 0 .. negatives.
        negatives: Independent trials without the record, at least 1.
        false_negatives: Trials with the record that were called "out", 0 .. positives.
        positives: Independent trials with the record, at least 1.
        delta: In [0, 1).
        confidence: Posterior probability in (0, 1). Over repeated audits the bound can exceed the truth more often
            than one minus it: where both directions of the test say the same, as for randomised response, about twice.
        neighboring: Which two data sets the trials were run on.
        unit: What they differ in.

    Returns:
        The bound, of kind CREDIBLE, never below 0.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(joint_credible(0, 1000, 0, 1000, delta=1e-5, confidence=0.95).lower, 2)
        7.21

    Source: Zanella-Beguelin et al. (2023), "Bayesian estimation of differential privacy".
    """
    check_error_counts(false_positives, negatives, false_negatives, positives)
    check_delta(delta)
    left = 1 - check_open_unit(confidence, name="confidence")
    lower = epsilon_quantile(left, false_positives, negatives, false_negatives, positives, delta=delta)
    ceiling = epsilon_quantile(left, 0, negatives, 0, positives, delta=delta)
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=neighboring,
        unit=unit,
        confidence=confidence,
        method="joint posterior of both error rates (Zanella-Beguelin et al. 2023)",
        kind=BoundKind.CREDIBLE,
        assumptions=(
            RUNS_ARE_INDEPENDENT,
            THRESHOLD_WAS_FIXED,
            "Both error rates have Jeffreys priors; the level is a posterior probability, not a rate of coverage.",
        ),
        ceiling=max(lower, ceiling),
    )


# Any ranking gives a valid threshold, for it is chosen on runs of its own; this one costs nothing.
CREDIBLE = CountMethod("the credible bound", bound=joint_credible, rank=two_rate_limit)


@functools.lru_cache(maxsize=4096)  # asked for again at each epsilon of a search
def _quantiles(first: float, second: float) -> Float64Array:
    """Return quantiles of a Beta distribution at equidistant normal deviates, exact in both tails."""
    below = special.betaincinv(first, second, special.ndtr(np.minimum(_DEVIATES, 0)))
    above = special.betainccinv(first, second, special.ndtr(-np.maximum(_DEVIATES, 0)))
    return np.asarray(np.where(_DEVIATES <= 0, below, above))
