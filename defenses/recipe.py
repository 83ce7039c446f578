"""The training recipe: everything that decides how a model is trained, apart from data, scheme and seed."""

import enum
import math
from dataclasses import dataclass, field

import torch

from defenses.architectures import Architecture
from defenses.augmentation import Augmentation
from defenses.sampling import Lots
from defenses.updates import SGD, UpdateRule


class Schedule(enum.StrEnum):
    """How the learning rate changes over a run."""

    CONSTANT = "constant"
    COSINE = "cosine"

    def factor(self, progress: float) -> float:
        """Return the multiplier of the learning rate at `progress` in [0, 1)."""
        return 1.0 if self is Schedule.CONSTANT else 0.5 * (1.0 + math.cos(math.pi * progress))


class Precision(enum.StrEnum):
    """Type of weights and arithmetic."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type."""
        return torch.float32 if self is Precision.FLOAT32 else torch.float64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Attributes:
        architecture: The network.
        lots: Nominal training size, lot size and epochs.
        learning_rate: Above 0.
        optimizer: Update rule, unless the scheme brings its own.
        schedule: Learning-rate schedule.
        precision: Arithmetic.
        augmentation: Random views of image records; by default none.

    Raises:
        ValueError: If the learning rate is not above 0.
    """

    architecture: Architecture
    lots: Lots
    learning_rate: float = 0.1
    optimizer: UpdateRule = field(default_factory=SGD)
    schedule: Schedule = Schedule.CONSTANT
    precision: Precision = Precision.FLOAT32
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a positive number")
