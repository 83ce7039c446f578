"""What a scheme guarantees, in the units that a lower bound can be compared with."""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field


class Neighboring(enum.Enum):
    """Which two data sets a guarantee holds for."""

    ADD_REMOVE = "one record added or removed"
    REPLACE_ONE = "one record replaced"


class Unit(enum.Enum):
    """Whose presence a guarantee hides."""

    RECORD = "record"
    USER = "user"


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


@dataclass(frozen=True)
class Unaccounted:
    """No guarantee can be computed, and why."""

    reason: str
