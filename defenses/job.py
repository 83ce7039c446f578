"""What is trained, apart from who is in and the seeds."""

from dataclasses import dataclass

from defenses.defense import Defense
from defenses.recipe import Recipe
from defenses.records import Records


@dataclass(frozen=True)
class Job:
    """What to train: everything but who is in and the seeds.

    Attributes:
        recipe: How.
        defense: Under which scheme.
        records: The pool of n records from which every model's members are taken.
    """

    recipe: Recipe
    defense: Defense
    records: Records
