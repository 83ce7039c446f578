"""Mislabelled canaries: records of the data under a wrong label."""

from dataclasses import dataclass

import numpy as np

from auditor.canaries.canary_type import CanaryType, Drawn
from defenses.errors import DataError
from defenses.progress import OnProgress, silent
from defenses.records import Records


@dataclass(frozen=True)
class Mislabelled(CanaryType):
    """A record under a label that it does not have, each wrong one as likely as the next.

    Its original leaves the data: beside it, the model would be taught two labels for the same features, and would
    remember neither.

    Source: Steinke, Nasr and Jagielski (2023), section 6; Aerni, Zhang and Tramer (2024) show that mislabelled records
    are close to the worst case. Drawn at random, not chosen by how well they are remembered.
    """

    name = "mislabelled"
    summary = "records of the data under a wrong label; their originals leave the data"
    paper = "Steinke, Nasr and Jagielski 2023; Aerni, Zhang and Tramer 2024"

    def draw(
        self, records: Records, count: int, *, rng: np.random.Generator, on_progress: OnProgress = silent
    ) -> Drawn:
        """Draw records without replacement and move each label on by 1 .. C - 1; see `CanaryType.draw`."""
        if records.classes < 2:
            raise DataError(f"{records.name} has {records.classes} class, so no label can be wrong; use random_noise")
        base = rng.permutation(len(records))[:count]
        wrong = (records.y[base] + rng.integers(1, records.classes, len(base))) % records.classes
        return Drawn(records.x[base], wrong, base)
