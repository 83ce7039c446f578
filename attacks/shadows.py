"""Shadow models: trained like the target on other draws from the same pool, cached by content, shared by attacks.

Every shadow takes each candidate by its own coin with the target's inclusion probability, so the shadows of one audit
serve online and offline attacks alike. The seeds derive from data, recipe and scheme alone: the same question always
gets the same shadows, and nobody can draw again until the answer pleases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from defenses.ensemble import Ensemble
from defenses.progress import OnProgress, silent
from defenses.randomness import derive, stream
from defenses.records import BoolArray, FloatArray
from defenses.store import ModelStore
from defenses.training import Job

Float64Array = npt.NDArray[np.float64]


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


@dataclass
class ShadowSource:
    """The attacker's own means of training: recipe, scheme, candidate records and a place to keep models.

    Attributes:
        job: Recipe, scheme and the pool of candidates.
        store: Where trained models are kept.
        probability: Chance with which a shadow includes a candidate.
        population: (z, *shape) features outside training, or None.
        device: Where to train and query.
        width: Models stacked per step, None for automatic.
        stage: What progress is called.
        planned: Shadows that are trained when any are wanted; who wants fewer gets the first of them.
    """

    job: Job
    store: ModelStore
    probability: float = 0.5
    population: FloatArray | None = None
    device: str = "auto"
    width: int | None = None
    stage: str = "training shadow models"
    planned: int = 0
    _kept: ShadowOutputs | None = field(default=None, repr=False)

    def included(self, count: int) -> BoolArray:
        """Return who is in each of `count` shadows, (count, m); a longer list starts with the shorter one."""
        records = self.job.records
        return np.stack([records.coins(stream(self._root, "coins", k), self.probability) for k in range(count)])

    def models(self, count: int, *, on_progress: OnProgress = silent) -> Ensemble:
        """Return `count` shadow models, training those that are not in the store."""
        if count < 1:
            raise ValueError(f"{count} shadow models were asked for; at least 1 is needed")
        seeds = [derive(self._root, "shadow", k) for k in range(count)]
        return self.store.train(
            self.job,
            self.included(count),
            seeds,
            device=self.device,
            width=self.width,
            stage=self.stage,
            on_progress=on_progress,
        )

    def outputs(self, count: int, *, on_progress: OnProgress = silent) -> ShadowOutputs:
        """Return what `count` shadows say about candidates and population; computed once and kept in memory."""
        if self._kept is None or len(self._kept.logits) < count:
            trained = max(count, self.planned)
            ensemble = self.models(trained, on_progress=on_progress)
            query = self._query(ensemble)
            empty = np.empty((trained, 0, self.job.records.classes))
            self._kept = ShadowOutputs(
                logits=query(self.job.records.x),
                included=self.included(trained),
                population=empty if self.population is None else query(self.population),
            )
        kept = self._kept
        return ShadowOutputs(kept.logits[:count], kept.included[:count], kept.population[:count])

    def _query(self, ensemble: Ensemble) -> Callable[[FloatArray], Float64Array]:
        from defenses.training import resolve_device

        place = str(resolve_device(self.device))
        return lambda x: ensemble.logits(x, device=place)

    @property
    def _root(self) -> int:
        job = self.job
        return derive(0, "shadows", job.records.digest, repr(job.recipe), repr(job.defense), repr(self.probability))
