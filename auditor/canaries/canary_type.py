"""The protocol of a kind of canary, and every kind by name."""

import abc
import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from defenses.plugins import classes_in
from defenses.progress import OnProgress, silent
from defenses.records import FloatArray, IntArray, Records


@dataclass(frozen=True)
class Drawn:
    """Candidates for canaries, in the encoding of the records that they were made for.

    Attributes:
        x: (k, *shape) features.
        y: (k,) labels.
        base: (k,) index of the record whose features each one has and that leaves the data for it, or None.
    """

    x: FloatArray
    y: IntArray
    base: IntArray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: IntArray) -> "Drawn":
        """Return the candidates at `indices`, in that order."""
        return Drawn(self.x[indices], self.y[indices], None if self.base is None else self.base[indices])


class CanaryType(abc.ABC):
    """One kind of canary. Subclasses are frozen dataclasses; one file of the folder `canary_types` each.

    Class attributes:
        name: Key on the command line and in reports.
        summary: What such a canary is, in one line.
        paper: Where it was used before.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]

    @abc.abstractmethod
    def draw(
        self, records: Records, count: int, *, rng: np.random.Generator, on_progress: OnProgress = silent
    ) -> Drawn:
        """Make candidates; nobody has tossed a coin for them yet.

        Args:
            records: The data that they are made for.
            count: How many are wanted, at least 1.
            rng: The only source of randomness.
            on_progress: Called while it works.

        Returns:
            As many as were asked for, or all that there can be; some may equal a record or one another.
        """


@functools.cache
def canary_types() -> dict[str, type[CanaryType]]:
    """Return every kind of canary by its name."""
    found: list[type[CanaryType]] = classes_in("auditor.canaries.types", CanaryType)
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.name)}
