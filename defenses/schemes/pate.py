"""PATE: teachers on disjoint parts of the records vote, with noise, on the labels that a student learns from."""

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dp_accounting
import numpy as np
import numpy.typing as npt

from defenses.calibration import calibrate
from defenses.defense import Defense, History
from defenses.ensemble import Ensemble
from defenses.errors import TrainingError
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee
from defenses.progress import OnProgress, Progress
from defenses.randomness import derive, stream
from defenses.records import BoolArray, FloatArray, IntArray, Records
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense

if TYPE_CHECKING:
    from defenses.defense import Job


class Law(enum.StrEnum):
    """The law of the noise on the counts of votes."""

    GAUSSIAN = "gaussian"  # GNMax
    LAPLACE = "laplace"  # LNMax


def parts_of(records: int, teachers: int, rng: np.random.Generator) -> IntArray:
    """Return the teacher (n,) of each record of a pool, in parts of nearly one size, whoever takes part."""
    return np.asarray(rng.permutation(records) % teachers, dtype=np.int64)


def noisy_winners(votes: IntArray, classes: int, *, law: Law, noise_scale: float, rng: np.random.Generator) -> IntArray:
    """Return, for each query, the class with most votes once noise is added to every count.

    Args:
        votes: (teachers, queries) classes.
        classes: C.
        law: Of the noise.
        noise_scale: Standard deviation (Gaussian) or scale b (Laplace) of the noise on each count, at least 0.
        rng: Draws it.

    Returns:
        (queries,) classes.
    """
    counts = np.stack([(votes == label).sum(axis=0) for label in range(classes)], axis=1)
    drawn = rng.standard_normal(counts.shape) if law is Law.GAUSSIAN else rng.laplace(size=counts.shape)
    return np.asarray((counts + noise_scale * drawn).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class PATE(Defense):
    """Private aggregation of teacher ensembles, with the price that holds whatever the teachers vote.

    Each record belongs to one part, drawn beforehand for the whole pool; one network per part is trained on its members
    without protection. For each query the network that most teachers say wins, after noise on the counts. Only winners
    leave; a student learns from them on public records. Give either the noise or the epsilon it is to be chosen for.

    Neighbours differ in one record more or less. Parts do not depend on who takes part, so one teacher at most changes,
    and in each query at most one vote moves from one class to another: two counts by 1, so sqrt(2) in L2 and 2 in L1.
    GNMax with deviation s costs a Gaussian mechanism of multiplier s / sqrt(2) for each query, LNMax with scale b pure
    2 / b. The same holds where a record is replaced by another of the same part, not by one of another part.

    The lower prices that depend on the votes are not offered: they are private themselves. The mode of the papers'
    schemes is missing here: what the text says is what it guarantees.

    Attributes:
        epsilon: Target epsilon in nats, above 0; for `laplace` at delta 0.
        noise_scale: Standard deviation or scale of the noise on each count, at least 0.
        teachers: T, at least 1.
        queries: Public records that are labelled, at least 1.
        law: Of the noise.
        delta: Failure probability, in (0, 1).

    Raises:
        ValueError: If both or neither of epsilon and noise_scale are given, or a value is out of range.

    Source: Papernot et al. 2017, "Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data"
    (LNMax); Papernot et al. 2018, "Scalable Private Learning with PATE" (GNMax). Their student learns from unlabelled
    records as well; ours is trained by the same recipe on the labelled ones.
    """

    epsilon: float | None = None
    noise_scale: float | None = None
    teachers: int = 50
    queries: int = 500
    law: Law = Law.GAUSSIAN
    delta: float = 1e-5

    name = "pate"
    title = "PATE"
    paper = "Papernot et al. 2018, Scalable Private Learning with PATE"
    uses_public = True
    trains_itself = True
    example = {"noise_scale": 1.0, "teachers": 3, "queries": 20}

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_scale is None):
            raise ValueError(
                f"epsilon is {self.epsilon} and noise_scale {self.noise_scale}; give exactly one of the two"
            )
        if self.epsilon is not None and not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon is {self.epsilon}; it must be above 0 and finite")
        if self.noise_scale is not None and not (self.noise_scale >= 0 and math.isfinite(self.noise_scale)):
            raise ValueError(f"noise_scale is {self.noise_scale}; it must be at least 0 and finite")
        if self.teachers < 1 or self.queries < 1:
            raise ValueError(f"teachers is {self.teachers}, queries {self.queries}; both must be at least 1")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must be in (0, 1)")

    def train(
        self, job: "Job", included: BoolArray, seeds: Sequence[int], *, device: str, on_progress: OnProgress
    ) -> Ensemble:
        """Train all teachers of all models in one call of the engine, let them vote, and train the students alike.

        Raises:
            TrainingError: If there are fewer public records than queries.
        """
        from defenses.engine.training import train  # a scheme that the engine asks, and that asks the engine

        public = job.public
        if public is None or len(public) < self.queries:
            raise TrainingError(
                f"queries is {self.queries}, but there are {0 if public is None else len(public)} public records; ask "
                "fewer, or give the job more"
            )
        size = max(1, job.recipe.lots.expected_members // self.teachers)
        plain = NoDefense()
        teaching = replace(job, recipe=_shorter(job, size), defense=plain, public=None)
        parts = [parts_of(len(job.records), self.teachers, stream(seed, "parts")) for seed in seeds]
        members = np.stack(
            [(part == t) & row for part, row in zip(parts, included, strict=True) for t in range(self.teachers)]
        )
        names = [derive(seed, "teacher", t) for seed in seeds for t in range(self.teachers)]
        alive = np.flatnonzero(members.any(axis=1))
        teachers = train(
            teaching,
            members[alive],
            [names[teacher] for teacher in alive],
            device=device,
            on_progress=_staged(on_progress, "training the teachers"),
        )
        asked = [np.sort(stream(seed, "queries").permutation(len(public))[: self.queries]) for seed in seeds]
        votes = np.zeros((len(members), self.queries), dtype=np.int64)  # without a single record: the first class
        for place, teacher in enumerate(alive):
            x = public.x[asked[teacher // self.teachers]]
            votes[teacher] = teachers.select([place]).logits(x, device=device)[0].argmax(axis=1)
        labels = [
            noisy_winners(
                votes[k * self.teachers : (k + 1) * self.teachers],
                public.classes,
                law=self.law,
                noise_scale=self.scale,
                rng=stream(seed, "votes"),
            )
            for k, seed in enumerate(seeds)
        ]
        pool, rows = _pooled(public, asked, labels)
        studying = replace(job, recipe=_shorter(job, self.queries), defense=plain, records=pool, public=None)
        return train(studying, rows, seeds, device=device, on_progress=_staged(on_progress, "training the students"))

    @property
    def scale(self) -> float:
        """Noise on each count."""
        if self.noise_scale is not None:
            return self.noise_scale
        assert self.epsilon is not None
        if self.law is Law.LAPLACE:
            return 2 * self.queries / self.epsilon
        return _calibrated(self.queries, self.epsilon, self.delta)

    def event(self, history: History) -> Any:
        """Return the composition of one noisy vote for each query."""
        return _event(self.queries, self.law, self.scale)

    def claimed(self, history: History) -> Guarantee | None:
        """Return the target, or nothing where the noise was given."""
        if self.epsilon is None:
            return None
        delta = self.delta if self.law is Law.GAUSSIAN else 0.0
        return Guarantee(self.epsilon, delta, self.neighboring, self.unit, accountant="target of the plan")

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        return (
            "teachers, their votes and the counts stay secret; the student alone is released",
            "the public records belong to nobody whose records teach",
            "noise is in floating point from a pseudo-random generator with a secret seed, as if it were exact",
            "the nominal training size, recipe and number of teachers are public",
        )


def _shorter(job: "Job", members: int) -> Any:
    """Return the recipe for so many members and as many epochs."""
    lots = job.recipe.lots
    return replace(job.recipe, lots=Lots(members, min(lots.batch_size, members), lots.epochs))


def _pooled(public: Records, asked: Sequence[IntArray], labels: Sequence[IntArray]) -> tuple[Records, BoolArray]:
    """Return all students' records one after the other, and who studies which (K, K queries)."""
    queries = len(asked[0])
    x: FloatArray = np.concatenate([public.x[rows] for rows in asked])
    y: npt.NDArray[np.int64] = np.concatenate(labels)
    pool = replace(public, x=x, y=y, owner=None, cluster=None)
    return pool, np.kron(np.eye(len(asked), dtype=np.bool_), np.ones((1, queries), dtype=np.bool_))


def _staged(on_progress: OnProgress, stage: str) -> OnProgress:
    def told(progress: Progress) -> None:
        on_progress(replace(progress, stage=stage))

    return told


def _event(queries: int, law: Law, scale: float) -> Any:
    if scale == 0:
        return dp_accounting.NonPrivateDpEvent()
    if law is Law.LAPLACE:
        return dp_accounting.SelfComposedDpEvent(PureDpEvent(2 / scale), queries)
    return dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(scale / math.sqrt(2)), queries)


@functools.lru_cache(maxsize=64)
def _calibrated(queries: int, epsilon: float, delta: float) -> float:
    return calibrate(functools.partial(_event, queries, Law.GAUSSIAN), epsilon=epsilon, delta=delta)
