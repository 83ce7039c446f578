"""One limit on the rate of wrong guesses, where the record was in half of the trials: tighter than one on each rate."""

from scipy import special

from auditor.epsilon.bound import THRESHOLD_WAS_FIXED, BoundKind, EpsilonBound
from auditor.epsilon.gaussian_bound import GAUSSIAN_SHAPE, gaussian_epsilon
from auditor.statistics.intervals import binomial_upper, check_open_unit
from defenses.guarantee import Neighboring, Unit


def mu_from_guesses(wrong: int, trials: int, *, error: float) -> float:
    """Return a lower limit on mu from guesses over balanced trials.

    Half the sum of both error rates of any test of a mu-GDP mechanism is at least Phi(-mu / 2). Balanced means as many
    trials with the record as without, or a fair coin for each: then that half is the rate of wrong guesses, and one
    Clopper-Pearson limit with the whole error on it does instead of two with half of it. With unequal rates among the
    trials it only errs to the safe side (Hoeffding 1956, theorem 4).

    Args:
        wrong: False positives and false negatives together, 0 .. trials.
        trials: Independent trials, at least 1.
        error: Probability in (0, 1) that the limit is above the truth, if the trade-off is Gaussian.

    Returns:
        At least 0.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(mu_from_guesses(309, 1000, error=0.05), 2)
        0.86

    Source: Dong, Roth and Su (2022), equation 6, for the Gaussian trade-off; the pooling is ours.
    """
    if trials < 1 or not 0 <= wrong <= trials:
        raise ValueError(f"wrong is {wrong}, trials {trials}; they must satisfy 0 <= wrong <= trials and trials >= 1")
    rate = float(binomial_upper(wrong, trials, error=check_open_unit(error, name="error")))
    return max(0.0, -2 * float(special.ndtri(rate)))


def gaussian_guesses(
    wrong: int,
    trials: int,
    *,
    delta: float,
    confidence: float,
    neighboring: Neighboring = Neighboring.ADD_REMOVE,
    unit: Unit = Unit.RECORD,
) -> EpsilonBound:
    """Bound epsilon from guesses over balanced trials, if the mechanism trades errors like a Gaussian.

    As `auditor.epsilon.gaussian_bound.gaussian_dp`, with `mu_from_guesses` in place of a limit on each rate.

    Args:
        wrong: False positives and false negatives together, 0 .. trials.
        trials: Independent trials, half of them with the record or each by a fair coin; at least 1.
        delta: In (0, 1).
        confidence: In (0, 1).
        neighboring: Which two data sets the trials were run on.
        unit: What they differ in.

    Returns:
        The bound; its assumptions name the shape that it takes for granted.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(gaussian_guesses(300, 2000, delta=1e-5, confidence=0.95).lower, 2)
        9.74
    """
    error = 1 - check_open_unit(confidence, name="confidence")
    lower = gaussian_epsilon(mu_from_guesses(wrong, trials, error=error), delta)
    ceiling = gaussian_epsilon(mu_from_guesses(0, trials, error=error), delta)
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=neighboring,
        unit=unit,
        confidence=confidence,
        method="Gaussian trade-off through one Clopper-Pearson limit on wrong guesses",
        kind=BoundKind.CONFIDENCE,
        assumptions=(
            "The trials are independent runs, half of them with the record.",
            THRESHOLD_WAS_FIXED,
            GAUSSIAN_SHAPE,
        ),
        ceiling=max(lower, ceiling),
    )
