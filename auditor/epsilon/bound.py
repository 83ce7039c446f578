"""A lower bound on epsilon as data, and the checks that every way of finding one shares."""

import enum
from dataclasses import dataclass

from auditor.statistics.intervals import check_open_unit
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

# What bounds of one design take for granted, said alike by all of them.
RUNS_ARE_INDEPENDENT = "The trials are independent runs."
THRESHOLD_WAS_FIXED = "The decision threshold was fixed before these trials were looked at."
COINS_ARE_FAIR = "Each canary was included by its own fair coin, independently of everything else."
GUESSES_ARE_BLIND = "Which canaries to guess was decided without looking at the coins."


class BoundKind(enum.Enum):
    """What kind of statement a bound is."""

    CONFIDENCE = "confidence"
    CREDIBLE = "credible"
    IMPLIED = "implied"


@dataclass(frozen=True)
class EpsilonBound:
    """A lower bound on epsilon with everything it rests on.

    Attributes:
        lower: In nats, at least 0.
        delta: The delta in [0, 1) at which it holds.
        neighboring: Which neighbours the trials distinguished.
        unit: Whose presence the trials distinguished.
        confidence: Probability in (0, 1) that the bound is not above the truth (for CREDIBLE: posterior probability).
        method: Who derived it.
        kind: CONFIDENCE, CREDIBLE, or IMPLIED (takes sampling rate, steps and sampler on trust).
        assumptions: What must hold for it to be true, one sentence each.
        ceiling: The largest bound that this many trials could ever give.

    Raises:
        ValueError: If `lower` is negative, NaN, or above `ceiling`.
    """

    lower: float
    delta: float
    neighboring: Neighboring
    unit: Unit
    confidence: float
    method: str
    kind: BoundKind
    assumptions: tuple[str, ...]
    ceiling: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.ceiling:
            raise ValueError(f"lower bound is {self.lower}; it must lie between 0 and its ceiling {self.ceiling}")
        check_delta(self.delta)
        check_open_unit(self.confidence, name="confidence")


def refuse_design(found: Inclusion, *, needed: Inclusion, method: str, remedy: str) -> None:
    """Raise ValueError unless the candidates were included by the design that `method` was made for."""
    if found is not needed:
        raise ValueError(
            f"inclusion is {found.name} ({found.value}); {method} needs {needed.name} ({needed.value}): {remedy}"
        )


def check_delta(delta: float) -> None:
    """Raise ValueError unless delta lies in [0, 1)."""
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in [0, 1), for example 1e-5")


def check_error_counts(false_positives: int, negatives: int, false_negatives: int, positives: int) -> None:
    """Raise ValueError unless both sides have trials and no more errors than trials, all whole numbers."""
    _check_errors(false_positives, negatives, "false_positives", "negatives")
    _check_errors(false_negatives, positives, "false_negatives", "positives")


def check_guesses(canaries: int, guesses: int, correct: int) -> None:
    """Raise ValueError unless 0 <= correct <= guesses <= canaries and there are canaries, all whole numbers."""
    ordered = 0 <= correct <= guesses <= canaries and canaries >= 1
    if not ordered or any(count % 1 != 0 for count in (canaries, guesses, correct)):
        raise ValueError(
            f"canaries is {canaries}, guesses {guesses}, correct {correct}; "
            "they must be whole numbers with 0 <= correct <= guesses <= canaries and canaries >= 1"
        )


def corrected_confidence(confidence: float, comparisons: int) -> float:
    """Return the confidence that each of several bounds needs for the largest of them to hold (Bonferroni)."""
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}; it must be at least 1: the number of bounds the best is of")
    return 1 - (1 - check_open_unit(confidence, name="confidence")) / comparisons


def _check_errors(errors: int, trials: int, name: str, total: str) -> None:
    if not trials >= 1 or trials % 1 != 0:
        raise ValueError(f"{total} is {trials}; a whole number of at least 1 trial is needed on each side")
    if not 0 <= errors <= trials or errors % 1 != 0:
        raise ValueError(f"{name} is {errors}; it must be a whole number in 0..{total} = {trials}")
