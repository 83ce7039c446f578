"""What a scheme guarantees, in the units that a lower bound can be compared with."""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace


class Neighboring(enum.Enum):
    """Which two data sets a guarantee holds for."""

    ADD_REMOVE = "one record added or removed"
    REPLACE_ONE = "one record replaced"


class Unit(enum.Enum):
    """Whose presence a guarantee hides."""

    RECORD = "record"
    USER = "user"
    LABEL = "label"  # of one record, whose features are not hidden


@dataclass(frozen=True)
class Guarantee:
    """An (epsilon, delta) statement with everything it rests on.

    Attributes:
        epsilon: In nats; infinity where nothing is promised.
        delta: In [0, 1).
        neighboring: Which neighbours it holds for.
        unit: Whose presence it hides.
        accountant: Who computed it.
        assumptions: What must hold for it to be true, one sentence each.
        epsilon_at: delta -> epsilon, where the accountant can tell the whole curve.

    Raises:
        ValueError: If epsilon is negative or delta outside [0, 1).
    """

    epsilon: float
    delta: float
    neighboring: Neighboring
    unit: Unit = Unit.RECORD
    accountant: str = ""
    assumptions: tuple[str, ...] = ()
    epsilon_at: Callable[[float], float] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if math.isnan(self.epsilon) or self.epsilon < 0:
            raise ValueError(f"epsilon is {self.epsilon}; it must be at least 0 (infinity where nothing is promised)")
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must be in [0, 1)")

    def for_group(self, size: int) -> "Guarantee":
        """Return what holds for groups of `size` records: (k epsilon, (1 + e^epsilon + .. + e^((k-1) epsilon)) delta).

        Raises:
            ValueError: If size is below 1.

        Source: Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy", Theorem 2.2; Vadhan 2017,
        "The Complexity of Differential Privacy", Lemma 2.2, for the factor of delta.
        """
        if size < 1:
            raise ValueError(f"size is {size}; a group has at least 1 record")
        grown = 0.0 if self.delta == 0 else self.delta * _powers(self.epsilon, size)
        return replace(
            self,
            epsilon=size * self.epsilon,
            delta=min(grown, 1 - 2**-53),
            accountant=f"{self.accountant}, converted to groups of {size}",
            epsilon_at=None,
        )

    def for_replacement(self) -> "Guarantee":
        """Return what an ADD_REMOVE guarantee says of replacing a record: one removal and one addition.

        Raises:
            ValueError: If it is stated for another relation.
        """
        if self.neighboring is not Neighboring.ADD_REMOVE:
            raise ValueError(f"the guarantee is stated for {self.neighboring.name}; only ADD_REMOVE is converted")
        pair = self.for_group(2)
        return replace(
            pair,
            neighboring=Neighboring.REPLACE_ONE,
            accountant=f"{self.accountant}, converted from ADD_REMOVE",
        )


def _powers(epsilon: float, count: int) -> float:
    """Return 1 + e^epsilon + ... + e^((count - 1) epsilon), infinity where that is too large."""
    try:
        return sum(math.exp(k * epsilon) for k in range(count))
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Unaccounted:
    """No guarantee can be computed, and why."""

    reason: str
