"""Blank canaries: nothing but one mark that tells them apart."""

from dataclasses import dataclass

import numpy as np

from auditor.canaries.canary_type import CanaryType, Drawn
from auditor.canaries.feature_ranges import feature_range
from auditor.datasets.schema import MISSING
from defenses.progress import OnProgress, silent
from defenses.records import FloatArray, Records, Table

LEVELS = tuple(level / 8 for level in range(1, 9))
"""How far up its range the mark of a numeric feature may stand."""


@dataclass(frozen=True)
class Blank(CanaryType):
    """Every feature at its lowest value but one, under a random label.

    A column of categories is blank at "?" if it has that, else at its first category. Canaries that are all equal could
    not be told apart, so each has one mark: a pixel, a number, or another category of one column. They still look
    alike to a model: few of them show more than many.

    Source: the blank sample of Nasr et al. (2023) and Annamalai and De Cristofaro (2024); the mark is ours.
    """

    name = "blank"
    summary = "every feature at its lowest value but for one mark, under a random label"
    paper = "Nasr et al. 2023; Annamalai and De Cristofaro 2024"

    def draw(
        self, records: Records, count: int, *, rng: np.random.Generator, on_progress: OnProgress = silent
    ) -> Drawn:
        """Draw marks and labels without replacement; see `CanaryType.draw`."""
        low, high = (side.reshape(-1) for side in feature_range(records))
        blank, marks = low.copy(), _numeric_marks(records)
        if isinstance(records.kind, Table):
            for column in records.kind.columns:
                if column.categories:
                    first = column.categories.index(MISSING) if MISSING in column.categories else 0
                    blank[column.start : column.start + column.width] = np.eye(column.width, dtype=np.float32)[first]
                    marks += [
                        (column.start + other, column.start + first, 1.0)
                        for other in range(column.width)
                        if other != first
                    ]
        total = len(marks) * records.classes
        chosen = rng.choice(total, size=min(count, total), replace=False)
        x = np.tile(blank, (len(chosen), 1))
        for row, mark in enumerate(chosen // records.classes):
            feature, instead, level = marks[mark]
            x[row, instead] = low[instead]
            x[row, feature] = low[feature] + level * (high[feature] - low[feature])
        found: FloatArray = x.reshape(len(chosen), *records.shape)
        return Drawn(found, (chosen % records.classes).astype(np.int64))


def _numeric_marks(records: Records) -> list[tuple[int, int, float]]:
    """Return (feature, feature that it replaces: itself, level) for every pixel or numeric column."""
    if isinstance(records.kind, Table):
        numeric = [column.start for column in records.kind.columns if not column.categories]
    else:
        numeric = list(range(int(np.prod(records.shape))))
    return [(feature, feature, level) for feature in numeric for level in LEVELS]
