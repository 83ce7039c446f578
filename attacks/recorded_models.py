"""Recorded answers in place of models: an audit of scores that somebody wrote down, without the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from attacks.shadow_outputs import ShadowOutput
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray, FloatArray

Float64Array = npt.NDArray[np.float64]

MOST_RECORDS = 2**24  # a record stands for its row number, which float32 holds exactly up to here


def row_numbers(first: int, count: int) -> FloatArray:
    """Return (count, 1) stand-ins for records: the rows of the recorded answers."""
    return np.arange(first, first + count, dtype=np.float32)[:, None]


@dataclass(frozen=True)
class RecordedModel:
    """Answers with what was recorded.

    Attributes:
        recorded: (n, C) float64 logits, one row per record.
    """

    recorded: Float64Array

    def logits(self, x: FloatArray) -> Float64Array:
        """Return the recorded logits (b, C) of the rows that x (b, 1) names.

        Raises:
            NotApplicableError: If x is anything else: other questions than the recorded ones have no answer.
        """
        rows = x.reshape(len(x), -1)
        if rows.shape[1] != 1 or not ((rows == rows.round()) & (rows >= 0) & (rows < len(self.recorded))).all():
            raise NotApplicableError("asks about records that are not among the recorded ones")
        return np.asarray(self.recorded[rows[:, 0].astype(np.int64)])


@dataclass(frozen=True)
class RecordedShadows:
    """What shadow models said, and who was in them.

    Attributes:
        logits: (k, m, C) on the candidates.
        members: (k, m) bool.
        population: (k, z, C) on the population; z = 0 without one.
    """

    logits: Float64Array
    members: BoolArray
    population: Float64Array

    def included(self, count: int) -> BoolArray:
        """Return who is in each of the first `count` shadows, (count, m)."""
        if count > len(self.members):
            raise NotApplicableError(
                f"needs {count} shadow models, and answers of {len(self.members)} are recorded: set shadows = "
                f"{len(self.members)} in the plan"
            )
        return self.members[:count]

    def each(self, count: int, *, queries: int = 1, on_progress: OnProgress = silent) -> Iterator[ShadowOutput]:
        """Return what each of the first `count` shadows said."""
        if queries != 1:
            raise NotApplicableError(f"asks about {queries} views of each record, and one answer is recorded")
        self.included(count)
        return islice((ShadowOutput(*pair) for pair in zip(self.logits, self.population, strict=True)), count)
