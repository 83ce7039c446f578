"""What is trained, apart from who is in and the seeds."""

from dataclasses import dataclass

from defenses.defense import Defense
from defenses.ensemble import Ensemble
from defenses.recipe import Recipe
from defenses.records import Records


@dataclass(frozen=True)
class Job:
    """What to train: everything but who is in and the seeds.

    Attributes:
        recipe: How.
        defense: Under which scheme.
        records: The pool of n records from which every model's members are taken.
        initial: One model whose weights every model starts from, public and fixed before the records were seen; None
            draws them by each model's seed.

    Raises:
        ValueError: If `initial` is not one model of the recipe's architecture for such records.
    """

    recipe: Recipe
    defense: Defense
    records: Records
    initial: Ensemble | None = None

    def __post_init__(self) -> None:
        if self.initial is None:
            return
        wanted = (self.recipe.architecture.key, self.records.shape, self.records.classes, 1)
        given = (self.initial.architecture.key, self.initial.shape, self.initial.classes, len(self.initial))
        if given != wanted:
            raise ValueError(
                f"initial is (architecture, shape, classes, models) = {given}; the job needs {wanted}: pretrain the "
                "same network on records of the same shape, and give one model of it"
            )
