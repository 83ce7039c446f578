"""What shadow models say, and the protocol of where an attack gets it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from defenses.progress import OnProgress, silent
from defenses.records import BoolArray

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ShadowOutput:
    """What one shadow model says.

    Attributes:
        logits: (m, C) on the candidates; (q, m, C) if q > 1 views of each were asked about.
        population: (z, C) or (q, z, C) on the population, which no shadow trained on; z = 0 without one.
    """

    logits: Float64Array
    population: Float64Array


@dataclass(frozen=True)
class ShadowOutputs:
    """What k shadow models say.

    Attributes:
        logits: (k, m, C) on the candidates.
        included: (k, m) bool: which candidates each shadow trained on.
        population: (k, z, C) on the population, which no shadow trained on; z = 0 without one.
    """

    logits: Float64Array
    included: BoolArray
    population: Float64Array


class Shadows(Protocol):
    """Where an attack gets what shadow models say."""

    def included(self, count: int) -> BoolArray:
        """Return who is in each of the first `count` shadows, (count, m)."""
        ...

    def each(self, count: int, *, queries: int = 1, on_progress: OnProgress = silent) -> Iterator[ShadowOutput]:
        """Return what each of the first `count` shadows says."""
        ...
