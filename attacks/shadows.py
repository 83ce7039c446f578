"""Shadow models: trained like the target on other draws from the same pool, cached by content, shared by attacks.

Every shadow takes each candidate by its own coin with the target's inclusion probability, so the shadows of one audit
serve online and offline attacks alike. The seeds derive from data, recipe and scheme alone: the same question always
gets the same shadows, and nobody can draw again until the answer pleases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import nn

from attacks.image_views import viewed
from attacks.shadow_outputs import ShadowOutput, ShadowOutputs
from defenses.engine.layout import Layout
from defenses.engine.store import ModelStore
from defenses.engine.training import Job, resolve_device
from defenses.ensemble import Ensemble, module_logits
from defenses.progress import OnProgress, silent
from defenses.randomness import derive, stream
from defenses.records import BoolArray, FloatArray, Records

Float64Array = npt.NDArray[np.float64]


@dataclass
class ShadowSource:
    """The attacker's own means of training: recipe, scheme, candidate records and a place to keep models.

    Attributes:
        job: Recipe, scheme and the pool of candidates.
        store: Where trained models are kept.
        probability: Chance with which a shadow includes a candidate.
        population: (z) records outside training, or None.
        device: Where to train and query.
        width: Models stacked per step, None for automatic.
        stage: What progress is called.
        planned: Shadows that are trained when any are wanted; who wants fewer gets the first of them.
        memory: Most bytes of logits to keep for the next attack; beyond that each attack asks the models again.
    """

    job: Job
    store: ModelStore
    probability: float = 0.5
    population: Records | None = None
    device: str = "auto"
    width: int | None = None
    stage: str = "training shadow models"
    planned: int = 0
    memory: int = 2**28
    _kept: dict[int, list[ShadowOutput]] = field(default_factory=dict, repr=False)

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

    @property
    def layout(self) -> Layout:
        """How the planned shadows are trained: models at a time, processes, threads, compiled or not."""
        return self.store.layout(self.job, max(1, self.planned), resolve_device(self.device), width=self.width)

    def each(self, count: int, *, queries: int = 1, on_progress: OnProgress = silent) -> Iterator[ShadowOutput]:
        """Return what each of `count` shadows says, in the order of `included`, one shadow at a time.

        Many shadows say more than memory holds: take the signal of each output before asking for the next.

        Args:
            count: Shadows, at least 1.
            queries: Views of each record that are asked about (`attacks.image_views`).
            on_progress: Called while shadows are trained.
        """
        kept = self._kept.get(queries)
        if kept is None or len(kept) < count:
            trained = max(count, self.planned)
            said = self._ask(self.models(trained, on_progress=on_progress), queries)
            records = len(self.job.records) + (0 if self.population is None else len(self.population))
            size = trained * queries * records * self.job.records.classes * np.dtype(np.float64).itemsize
            if size > self.memory:
                return islice(said, count)
            kept = self._kept[queries] = list(said)
        return iter(kept[:count])

    def outputs(self, count: int, *, on_progress: OnProgress = silent) -> ShadowOutputs:
        """Return what `count` shadows say, for an attack that needs all of it at once; else see `each`."""
        said = list(self.each(count, on_progress=on_progress))
        return ShadowOutputs(
            logits=np.stack([one.logits for one in said]),
            included=self.included(count),
            population=np.stack([one.population for one in said]),
        )

    def _ask(self, ensemble: Ensemble, queries: int) -> Iterator[ShadowOutput]:
        place = str(resolve_device(self.device))
        candidates = viewed(self.job.records, queries)
        population = [] if self.population is None else viewed(self.population, queries)
        empty = np.empty((queries, 0, self.job.records.classes))

        def said(model: nn.Module, views: Sequence[FloatArray]) -> Float64Array:
            logits = np.stack([module_logits(model, x, device=place) for x in views]) if views else empty
            return logits if queries > 1 else logits[0]

        for model in ensemble:
            yield ShadowOutput(said(model, candidates), said(model, population))

    @property
    def _root(self) -> int:
        job = self.job
        return derive(0, "shadows", job.records.digest, repr(job.recipe), repr(job.defense), repr(self.probability))
