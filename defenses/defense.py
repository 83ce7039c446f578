"""The protocol of a privacy scheme: four answers, and the engine does the rest.

What happens to the records (`prepare`), to each gradient (`gradient`), to the update (`update`), and what that costs
(`event`). A scheme never prices itself: `defenses.accounting` does. Each scheme is one file in `defenses/schemes/`.
"""

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from defenses.ensemble import Ensemble
from defenses.gradients import GradientRule
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.input_transform import InputTransform
from defenses.progress import OnProgress
from defenses.recipe import Recipe
from defenses.records import BoolArray, Records
from defenses.sampling import Lots
from defenses.updates import UpdateRule


class Sampler(enum.Enum):
    """How lots are drawn."""

    POISSON = "each record by its own coin, at every step"
    POISSON_BY_LABEL = "each record by its own coin, and one step for the records of each label"
    SHUFFLE = "one shuffled pass per epoch"


@dataclass(frozen=True)
class Prepared:
    """What one model trains on instead of its records.

    Attributes:
        records: What it trains on; their number and shape may differ from those of the records.
        facts: Public facts about the preparation, JSON-ready: what the scheme releases beside the model.
        front: What every query to the model goes through from then on, and `records` went through already.
    """

    records: Records
    facts: Mapping[str, Any] = field(default_factory=dict)
    front: InputTransform | None = None


@dataclass(frozen=True)
class History:
    """What a run did to the data, as far as its price depends on it.

    Attributes:
        lots: Public facts of sampling.
        facts: Public facts of the preparation, by name.
        state: Final state of the gradient rule (thresholds, budgets), by name; JSON-ready.
    """

    lots: Lots
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepPromise:
    """What a scheme says of each of its steps: one record adds at most so much to the sum, and Gaussian noise hides it.

    Attributes:
        thresholds: Most that one record adds to each group of parameters (of the gradient rule), in L2; where the
            threshold moves, that of the first step.
        noise_multiplier: Deviation of the noise over the joint norm, in the direction where a record shows the most.
        priced: Noise multiplier -> event of the whole run, all else as it is.
        moves: Whether the threshold, one for all parameters, changes from step to step and the noise with it; the rule
            is then a `defenses.gradients.MovingThreshold`.
    """

    thresholds: tuple[float, ...]
    noise_multiplier: float
    priced: Callable[[float], Any]
    moves: bool = False


class Defense(abc.ABC):
    """A privacy scheme. Subclasses are frozen dataclasses whose fields are the scheme's parameters.

    Class attributes:
        name: Key in plans.
        title: What reports call it.
        paper: Where it comes from.
        sampler: How it draws its lots.
        neighboring: Relation that its guarantee is stated for.
        unit: Whose presence it hides.
        uses_public: Whether it needs records that are public (of the same shape, outside every training).
        trains_itself: Whether its training is not the engine's loop; it then has a `train` of its own.
        example: Settings, beside the defaults, under which the contract tests train with it.
        example_hidden: Hidden layers of the networks that they train; none for a scheme of linear models alone.
        label_smoothing: Share of the target that the cross-entropy spreads over all classes, in [0, 1).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    sampler: ClassVar[Sampler] = Sampler.SHUFFLE
    neighboring: ClassVar[Neighboring] = Neighboring.ADD_REMOVE
    unit: ClassVar[Unit] = Unit.RECORD
    uses_public: ClassVar[bool] = False
    trains_itself: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]] = {}
    example_hidden: ClassVar[tuple[int, ...]] = (4,)
    label_smoothing: float = 0.0

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Return what a model trains on instead of `records` (default: as they are); called once per model.

        Args:
            records: The records that this model trains on.
            rng: This model's own stream.
            public: Public records, where the job has some and the scheme uses them.
        """
        return Prepared(records)

    def train(
        self, job: "Job", included: BoolArray, seeds: Sequence[int], *, device: str, on_progress: OnProgress
    ) -> Ensemble:
        """Train K models in a way of the scheme's own; asked only where `trains_itself`.

        Arguments as in `defenses.engine.training.train`, which a scheme may call for jobs under other schemes.
        """
        raise NotImplementedError(f"scheme {self.name!r} trains by the engine's loop")

    def gradient(self, lots: Lots) -> GradientRule | None:
        """Return the rule for per-example gradients, or None for the plain mean over the lot."""
        return None

    def update(self, recipe: Recipe) -> UpdateRule:
        """Return the update rule (default: the recipe's)."""
        return recipe.optimizer

    def steps(self, lots: Lots) -> StepPromise | None:
        """Return what each step is said to do, so that gradient canaries can test it; None where that is not known."""
        return None

    def released(self, facts: Mapping[str, Any], like: Records, rng: np.random.Generator) -> Records | None:
        """Return records that the scheme released beside the model, drawn from its public facts; None for none.

        Args:
            facts: Public facts of one model's preparation.
            like: Records of the same encoding; only the encoding is looked at.
            rng: Where draws come from, which cost no privacy.
        """
        return None

    def unprotected(self) -> "Defense | None":
        """Return the scheme without its protection, where that is another release than none; for controls."""
        return None

    def fixed(self, lots: Lots) -> "Defense":
        """Return the scheme with the noise that a run with these lots has, for runs of any length (default: itself)."""
        return self

    @abc.abstractmethod
    def event(self, history: History) -> Any:
        """Return what the run did as a `dp_accounting.DpEvent`, or `Unaccounted` with the reason."""

    def claimed(self, history: History) -> Guarantee | None:
        """Return what the scheme's paper would state for this run, or None where it states nothing."""
        return None

    def assumptions(self) -> tuple[str, ...]:
        """Return what must hold, beyond the accounting, for the guarantee to be true; one sentence each."""
        return ()


@dataclass(frozen=True)
class Job:
    """What to train: everything but who is in and the seeds.

    Attributes:
        recipe: How.
        defense: Under which scheme.
        records: The pool of n records from which every model's members are taken.
        initial: One model whose weights every model starts from, public and fixed before the records were seen; None
            draws them by each model's seed.
        public: Records outside every training that anybody may see, for schemes that use some.

    Raises:
        ValueError: If `initial` is not one model of the recipe's architecture for such records, or public records are
            of another shape, or missing for a scheme that needs them.
    """

    recipe: Recipe
    defense: Defense
    records: Records
    initial: Ensemble | None = None
    public: Records | None = None

    def __post_init__(self) -> None:
        if self.defense.uses_public and (self.public is None or not len(self.public)):
            raise ValueError(
                f"scheme {self.defense.name!r} needs public records, outside every training; give the job some "
                "(in a plan: [data] population = N, which declares N records public)"
            )
        if self.public is not None and self.public.shape != self.records.shape:
            raise ValueError(f"public records have shape {self.public.shape}, the others {self.records.shape}")
        if self.initial is None:
            return
        wanted = (self.recipe.architecture.key, self.records.shape, self.records.classes, 1)
        given = (self.initial.architecture.key, self.initial.shape, self.initial.classes, len(self.initial))
        if given != wanted:
            raise ValueError(
                f"initial is (architecture, shape, classes, models) = {given}; the job needs {wanted}: pretrain the "
                "same network on records of the same shape, and give one model of it"
            )
