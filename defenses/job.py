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
