"""What so many canaries can show at most, known before anything is planted or trained."""

import math

import numpy as np

from auditor.epsilon.one_run_bound import one_run_from_scores
from defenses.records import Inclusion

MOST = 2**20
"""More canaries than this are not looked at: their number times delta has long eaten up what they add."""


def one_run_ceiling(canaries: int, *, delta: float, confidence: float = 0.95, attacks: int = 1) -> float:
    """Return the largest epsilon that an audit of one run can show, if every guess about every canary is right.

    The error is shared as an audit shares it: half of it for claims, over numbers of guesses and over attacks.

    Args:
        canaries: m, at least 2.
        delta: Of the claim, in [0, 1).
        confidence: Of all verdicts of the audit, in (0, 1).
        attacks: Attacks of which the best is reported.

    Examples:
        >>> round(one_run_ceiling(1000, delta=1e-5), 1)
        5.0

    Source: Steinke, Nasr and Jagielski (2023), theorem 5.2; see `auditor.epsilon.one_run_bound.one_run`.
    """
    coins = np.arange(canaries) % 2 == 1
    perfect = one_run_from_scores(
        coins.astype(np.float64),
        coins,
        inclusion=Inclusion.INDEPENDENT,
        delta=delta,
        confidence=1 - (1 - confidence) / 2,
        comparisons=attacks,
    )
    return perfect.bound.ceiling


def canaries_needed(epsilon: float, *, delta: float, confidence: float = 0.95, attacks: int = 1) -> int | None:
    """Return a number of canaries whose ceiling is above epsilon, to two digits, or None if there is none.

    With delta above 0 more canaries do not always show more: the bound pays 2 m delta.

    Args:
        epsilon: What is claimed; at least 0.
        delta: Of the claim, in [0, 1).
        confidence: Of all verdicts of the audit, in (0, 1).
        attacks: Attacks of which the best is reported.
    """

    def enough(canaries: int) -> bool:
        return one_run_ceiling(canaries, delta=delta, confidence=confidence, attacks=attacks) > epsilon

    low, high = 1, 2
    while not enough(high):
        low, high = high, math.ceil(1.4 * high)
        if high > MOST:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    step = 10 ** max(0, math.floor(math.log10(high)) - 1)
    rounded = -(-high // step) * step
    return rounded if enough(rounded) else high
