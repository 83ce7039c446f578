"""One-run audit against a Gaussian trade-off curve instead of a single (epsilon, delta): tighter, if the shape is so.

Rests on one inequality. Let C be the number of right guesses, p_i = P[C = i], r the number of guesses and m the number
of canaries. Take the event that canary j is guessed right and C is at least i + 1. Had the coin of j fallen the other
way, the same outputs would guess j wrong and C would be one less. Both have the same prior chance, so f-DP relates
their probabilities; averaged over j, because 1 - f is concave,

    R(i + 1) <= 1 - f(H(i)),   R(i) = sum_{k >= i} k p_k / m,   H(i) = sum_{k >= i} (r - k) p_k / m.
"""

import functools

from scipy import special

from auditor.epsilon.bound import COINS_ARE_FAIR, GUESSES_ARE_BLIND, BoundKind, EpsilonBound, check_guesses
from auditor.epsilon.gaussian_bound import GAUSSIAN_SHAPE, gaussian_epsilon
from auditor.statistics.intervals import check_open_unit
from defenses.guarantee import Neighboring, Unit

_SLACK = 1e-9  # relative; rounding in a sum of some thousand terms stays below it
_RESOLUTION = 1e-9


def one_run_fdp(canaries: int, guesses: int, correct: int, *, delta: float, confidence: float) -> EpsilonBound:
    """Bound epsilon from guesses about many canaries of one training run, if it trades errors like a Gaussian.

    If training is mu-GDP for each canary, a tail P[C >= correct] of the number of right guesses drags along at least so
    much mass at each smaller number (see `refutes_mu`); where that comes to more than 1, the tail is refuted. The bound
    is epsilon at delta of the largest mu for which a tail of 1 - confidence is.

    A Gaussian speaks in its clear outputs, so guess few canaries of many: with all of them guessed, no number of them
    shows more than 1.3 of an epsilon of 4.4 (delta 1e-5); with the clearest 1,000 of 100,000, 3.5.

    Args:
        canaries: m, records that were each included by an independent fair coin, at least 1.
        guesses: Number of coins guessed, 0 .. canaries.
        correct: Number guessed right, 0 .. guesses.
        delta: In (0, 1).
        confidence: In (0, 1).

    Returns:
        The bound, exact from below to 1e-9 in mu; its assumptions name the shape that it takes for granted.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(one_run_fdp(1000, 120, 112, delta=1e-5, confidence=0.95).lower, 2)
        3.13

    Source: Mahloujifar, Melis and Chaudhuri (2024), the numerical test for guesses with abstention, two choices per
    canary. They test one given curve; we search the Gaussian family for the edge, where the recursion is monotone.
    """
    check_guesses(canaries, guesses, correct)
    error = 1 - check_open_unit(confidence, name="confidence")
    lower = gaussian_epsilon(_mu_limit(canaries, guesses, correct, error=error), delta)
    most = gaussian_epsilon(_mu_limit(canaries, guesses, guesses, error=error), delta)
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=Neighboring.ADD_REMOVE,
        unit=Unit.RECORD,
        confidence=confidence,
        method="one-run bound on the Gaussian trade-off (Mahloujifar, Melis, Chaudhuri 2024)",
        kind=BoundKind.CONFIDENCE,
        assumptions=(
            COINS_ARE_FAIR,
            GUESSES_ARE_BLIND,
            GAUSSIAN_SHAPE,
        ),
        ceiling=max(lower, most),
    )


def refutes_mu(canaries: int, guesses: int, correct: int, *, mu: float, error: float) -> bool:
    """Say whether a mu-GDP mechanism gives `correct` right guesses or more with probability below `error`.

    Starts from a mass of `error` at `correct` and adds at each smaller number the least mass that the inequality of
    this module asks for. The least at each step is the least in sum: mass moved from i to i - 1 lowers every R and
    raises every later H, so it only eases the steps that follow.

    Args:
        canaries: m, at least 1.
        guesses: 1 .. m.
        correct: 1 .. guesses.
        mu: At least 0.
        error: In (0, 1).

    Source: Mahloujifar, Melis and Chaudhuri (2024); the argument for the least mass is ours.
    """
    right = error * correct / canaries  # R(i + 1)
    wrong = error * (guesses - correct) / canaries  # H(i + 1)
    everything = guesses / canaries * (1 + _SLACK)  # R(0) + H(0) of a distribution
    for i in range(correct - 1, -1, -1):
        needed = float(special.ndtr(special.ndtri(right) - mu))
        if needed <= wrong:  # then nothing is asked for at any smaller number either
            return False
        right += i / (guesses - i) * (needed - wrong)
        wrong = needed
        if right + wrong > everything:
            return True
    return False


@functools.lru_cache(maxsize=4096)  # ceilings recur over attacks and grids
def _mu_limit(canaries: int, guesses: int, correct: int, *, error: float) -> float:
    """Return the largest mu that is refuted, from below, or 0."""
    if correct == 0 or not refutes_mu(canaries, guesses, correct, mu=0.0, error=error):
        return 0.0
    low, high = 0.0, 1.0
    while refutes_mu(canaries, guesses, correct, mu=high, error=error):
        low, high = high, 2 * high
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        if refutes_mu(canaries, guesses, correct, mu=middle, error=error):
            low = middle
        else:
            high = middle
    return low
