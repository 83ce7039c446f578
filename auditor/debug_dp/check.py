"""The protocol of a check, what it may answer, and how all of them are found."""

import abc
import functools
from dataclasses import dataclass
from typing import ClassVar

from auditor.debug_dp.bench import Harness
from auditor.epsilon.bound import EpsilonBound
from defenses.plugins import classes_in


@dataclass(frozen=True)
class Answer:
    """What one check found.

    Attributes:
        p_value: Probability of such a find, or a worse one, if the invariant holds; 0 or 1 where there is no chance in
            it; None if the check could not tell.
        found: One sentence on what was measured.
        bound: What it implies about epsilon, where that follows.
    """

    p_value: float | None
    found: str
    bound: EpsilonBound | None = None


class Check(abc.ABC):
    """One check of somebody's DP-SGD. Subclasses are frozen dataclasses in a file of their own.

    Class attributes:
        name: Key in results.
        title: What people read.
        invariant: What must hold, one sentence that is printed if it does not.
        order: Cheapest first.
        needs_training: Whether it needs a whole training; a step alone leaves it out.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    invariant: ClassVar[str]
    order: ClassVar[int]
    needs_training: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, bench: Harness) -> Answer:
        """Measure.

        Raises:
            UserCodeError: If the code under test breaks.
            NotApplicableError: If there is nothing here to check.
        """


@functools.cache
def checks() -> tuple[type[Check], ...]:
    """Return every check: each file of the folder `checks` that defines one, in the order in which they are run."""
    found: list[type[Check]] = classes_in("auditor.debug_dp.checks", Check)
    return tuple(sorted(found, key=lambda check: check.order))
