"""The candidates of a target that somebody else made, with the truth about them, wherever both come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from auditor.context import RunContext
from auditor.datasets import check_records
from auditor.datasets.sources import joined, load_source, refuse_overlap
from auditor.plan.sections import Source
from defenses.randomness import stream
from defenses.records import BoolArray, Inclusion, Records, Split


@dataclass(frozen=True)
class LabelledCandidates:
    """Candidates and truth.

    Attributes:
        candidates: (m) in an order that tells nothing.
        included: (m,) bool: who was in.
        inclusion: How that was decided.
        probability: Chance of being in; for FIXED, the share that was.
        population: Records outside all training, or None.
        beside: Records that were in for sure and are no candidates, or None where they are not known.
        commitment: Commitment to the secret that decided who was in, or why there is none.
        remarks: Remarks for the provenance, by name.
    """

    candidates: Records
    included: BoolArray
    inclusion: Inclusion
    probability: float
    population: Records | None = None
    beside: Records | None = None
    commitment: str = "none: the target was trained elsewhere"
    remarks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """The truth about the candidates."""
        return Split(self.included, self.inclusion, self.probability)


@dataclass(frozen=True)
class Sides:
    """Records that a target was made from, records that it was not, and a population outside both, or None."""

    members: Records
    nonmembers: Records
    population: Records | None

    @property
    def classes(self) -> int:
        """Number of classes C that all of them need."""
        return max(part.classes for part in (self.members, self.nonmembers, self.population) if part is not None)


def load_sides(members: Source, nonmembers: Source, population: Source | None, context: RunContext) -> Sides:
    """Load both sides and the population, all encoded like the members.

    Raises:
        AuditError: If they cannot be found, read or encoded.
    """
    inside = load_source(members, context)
    outside = load_source(nonmembers, context, like=inside)
    return Sides(inside, outside, None if population is None else load_source(population, context, like=inside))


def mixed(sides: Sides, *, classes: int, coins: bool = False) -> LabelledCandidates:
    """Return both sides as candidates in an order of their own: members first would be the answer key.

    Args:
        sides: What was loaded.
        classes: Number of classes C.
        coins: Whether independent fair coins decided who was a member.

    Raises:
        DataError: If the sides cannot be compared, or share records with each other or with the population.
    """
    members, nonmembers, population = sides.members, sides.nonmembers, sides.population
    check_records(members, nonmembers, classes=classes, shape=members.shape)
    both = joined(members, nonmembers, classes)
    if population is not None:
        refuse_overlap(population, both)
        population = replace(population, classes=classes)
    order = stream(0, "order", both.digest).permutation(len(both))
    return LabelledCandidates(
        candidates=both.take(order),
        included=np.asarray(order < len(members)),
        inclusion=Inclusion.INDEPENDENT if coins else Inclusion.FIXED,
        # With coins the attacker may know the chance, one half, but not how many of them fell on which side.
        probability=0.5 if coins else len(members) / len(both),
        population=population,
    )
