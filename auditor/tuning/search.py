"""From looks to an answer: the walk, one more look at a fresh split, and what all of it comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditor.tuning.walk import bisection, fixed_sequence, looks_of_bisection
from reports.records.report import Status
from reports.records.tuning import Look, Outcome, Stage

FIXED, BISECTION, SELECTION = "fixed_sequence", "bisection", "private_selection"

LookAt = Callable[[float, Stage, float], Look]


@dataclass(frozen=True)
class SearchResult:
    """What a search comes to.

    Attributes:
        outcome: In a word.
        answer: The setting that was found, or None.
        looks: All looks, in order.
    """

    outcome: Outcome
    answer: float | None
    looks: tuple[Look, ...]


def looks_at_most(mode: str, count: int) -> int:
    """Return the most looks that a search takes, the final one included; a private selection takes no other."""
    if mode == SELECTION:
        return 1
    return 1 + (looks_of_bisection(count) if mode == BISECTION else count)


def error_of_look(mode: str, count: int, *, confidence: float) -> float:
    """Return the chance with which each look of the walk may pass a setting that it ought not to."""
    return (1 - confidence) / (looks_of_bisection(count) if mode == BISECTION else 1)


def search(
    settings: Sequence[float],
    look: LookAt,
    *,
    mode: str = FIXED,
    confidence: float = 0.95,
    minimum_accuracy: float | None = None,
) -> SearchResult:
    """Find the setting with the least noise that passes, and confirm it on what the search did not see.

    The chance that an answer is given whose leak is above a limit is at most 1 - confidence, whatever the walk does:
    the final look alone, with fresh coins for who is in and fresh seeds, is wrong with no more. There is one final
    look, so nothing is picked from several.

    Args:
        settings: Values of the knob, the strongest noise first; at least one.
        look: (value, stage, two-sided level) -> one look at that setting.
        mode: FIXED or BISECTION.
        confidence: In (0.5, 1).
        minimum_accuracy: What the final model must surely reach, or None.

    Returns:
        Outcome, answer and looks.
    """
    looks: list[Look] = []
    error = error_of_look(mode, len(settings), confidence=confidence)

    def passes(place: int) -> bool:
        looks.append(look(settings[place], Stage.WALK, 1 - 2 * error))
        return looks[-1].verdict is Status.WITHIN

    place = (bisection if mode == BISECTION else fixed_sequence)(len(settings), passes)
    if any(one.verdict is Status.ERROR for one in looks):
        return SearchResult(Outcome.FAILED, None, tuple(looks))
    if place is None:
        leaks = looks[-1].verdict in (Status.LEAKS, Status.VIOLATED)
        return SearchResult(Outcome.NONE if leaks else Outcome.UNDECIDED, None, tuple(looks))
    return confirm(settings, place, look, looks=looks, confidence=confidence, minimum_accuracy=minimum_accuracy)


def confirm(
    settings: Sequence[float],
    place: int,
    look: LookAt,
    *,
    looks: Sequence[Look] = (),
    confidence: float = 0.95,
    minimum_accuracy: float | None = None,
) -> SearchResult:
    """Take the one look that decides about a choice; arguments as in `search`, and what was looked at before."""
    final = look(settings[place], Stage.FINAL, 1 - 2 * (1 - confidence))
    taken = (*looks, final)
    if final.verdict is not Status.WITHIN:
        outcome = Outcome.FAILED if final.verdict is Status.ERROR else Outcome.UNCONFIRMED
        return SearchResult(outcome, None, taken)
    accurate = final.accuracy_holdout
    if minimum_accuracy is not None:
        if accurate is None or accurate.low is None or accurate.high is None:
            return SearchResult(Outcome.UNDECIDED, None, taken)
        if accurate.high < minimum_accuracy:
            return SearchResult(Outcome.TOO_INACCURATE, None, taken)
        if accurate.low < minimum_accuracy:
            return SearchResult(Outcome.UNDECIDED, None, taken)
    last = place == len(settings) - 1
    return SearchResult(Outcome.ALL if last else Outcome.FOUND, settings[place], taken)
