"""The protocol of a privacy scheme: four answers, and the engine does the rest.

What happens to the records (`prepare`), to each gradient (`gradient`), to the update (`update`), and what that costs
(`event`). A scheme never prices itself: `defenses.accounting` does. Each scheme is one file in `defenses/schemes/`.
"""

import abc
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from defenses.gradients import GradientRule
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.recipe import Recipe
from defenses.records import Records
from defenses.sampling import Lots
from defenses.updates import UpdateRule


class Sampler(enum.Enum):
    """How lots are drawn."""

    POISSON = "each record by its own coin, at every step"
    SHUFFLE = "one shuffled pass per epoch"


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


class Defense(abc.ABC):
    """A privacy scheme. Subclasses are frozen dataclasses whose fields are the scheme's parameters.

    Class attributes:
        name: Key in plans.
        title: What reports call it.
        paper: Where it comes from.
        sampler: How it draws its lots.
        neighboring: Relation that its guarantee is stated for.
        unit: Whose presence it hides.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    sampler: ClassVar[Sampler] = Sampler.SHUFFLE
    neighboring: ClassVar[Neighboring] = Neighboring.ADD_REMOVE
    unit: ClassVar[Unit] = Unit.RECORD

    def prepare(self, records: Records, rng: np.random.Generator) -> tuple[Records, Mapping[str, Any]]:
        """Return what the model trains on instead of `records`, and the public facts about it (default: as they are).

        Called once per model on the records that this model trains on; row order and number must be kept.
        """
        return records, {}

    def gradient(self, lots: Lots) -> GradientRule | None:
        """Return the rule for per-example gradients, or None for the plain mean over the lot."""
        return None

    def update(self, recipe: Recipe) -> UpdateRule:
        """Return the update rule (default: the recipe's)."""
        return recipe.optimizer

    @abc.abstractmethod
    def event(self, history: History) -> Any:
        """Return what the run did as a `dp_accounting.DpEvent`, or `Unaccounted` with the reason."""

    def claimed(self, history: History) -> Guarantee | None:
        """Return what the scheme's paper would state for this run, or None where it states nothing."""
        return None

    def assumptions(self) -> tuple[str, ...]:
        """Return what must hold, beyond the accounting, for the guarantee to be true; one sentence each."""
        return ()
