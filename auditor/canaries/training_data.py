"""Models that train on planted canaries and on the data beside them: a store that adds what every model has seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from auditor.datasets.sources import joined
from defenses.engine.layout import Layout
from defenses.engine.store import ModelStore
from defenses.engine.training import Job
from defenses.ensemble import Ensemble
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray, Records


@dataclass
class StoreBeside(ModelStore):
    """A store whose models all train on some more records than those that a job tosses coins about.

    Who asks for models sees the candidates only; the records beside them are in every model.

    Attributes:
        beside: Those records; None adds nothing.
    """

    beside: Records | None = None

    def train(
        self,
        job: Job,
        included: BoolArray,
        seeds: Sequence[int],
        *,
        device: str = "auto",
        width: int | None = None,
        stage: str = "training models",
        on_progress: OnProgress = silent,
    ) -> Ensemble:
        """Return models trained on their candidates and on what lies beside; see `ModelStore.train`."""
        everyone = np.ones((len(included), 0 if self.beside is None else len(self.beside)), dtype=np.bool_)
        store = ModelStore(self.folder, executor=self.executor)
        found = store.train(
            self._whole(job),
            np.concatenate([included, everyone], axis=1),
            seeds,
            device=device,
            width=width,
            stage=stage,
            on_progress=on_progress,
        )
        self.trained += store.trained
        self.loaded += store.loaded
        return found

    def layout(self, job: Job, models: int, device: torch.device, *, width: int | None = None) -> Layout:
        """Return how the training is laid out; see `ModelStore.layout`."""
        return ModelStore(self.folder, executor=self.executor).layout(self._whole(job), models, device, width=width)

    def _whole(self, job: Job) -> Job:
        if self.beside is None:
            return job
        return replace(job, records=joined(job.records, self.beside, job.records.classes))
