"""Random-noise canaries: every feature drawn by itself over its whole range, every column over its categories."""

from dataclasses import dataclass

import numpy as np

from auditor.canaries.canary_type import CanaryType, Drawn
from auditor.canaries.feature_ranges import feature_range
from defenses.progress import OnProgress, silent
from defenses.records import Records, Table


@dataclass(frozen=True)
class RandomNoise(CanaryType):
    """Features and label drawn uniformly: pixels over the public range, table columns over their range or categories.

    Source: random images as canaries, Carlini et al. (2022), "Quantifying memorization"; for tables, column by column,
    so that every row keeps to the schema.
    """

    name = "random_noise"
    summary = "features drawn uniformly over their ranges or categories, under a random label"
    paper = "Carlini et al. 2022"

    def draw(
        self, records: Records, count: int, *, rng: np.random.Generator, on_progress: OnProgress = silent
    ) -> Drawn:
        """Draw every feature and the label; see `CanaryType.draw`."""
        low, high = feature_range(records)
        x = rng.uniform(low, high, size=(count, *records.shape)).astype(np.float32)
        if isinstance(records.kind, Table):
            for column in records.kind.columns:
                if column.categories:
                    chosen = rng.integers(0, column.width, count)
                    x[:, column.start : column.start + column.width] = np.eye(column.width, dtype=np.float32)[chosen]
        return Drawn(x, rng.integers(0, records.classes, count))
