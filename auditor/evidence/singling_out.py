"""Predicates joined with the truth: how many people of the training data they single out, and how many others."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from attacks.protocol import Attack, Predicates
from auditor.evidence.claim_kind import ClaimKind, Joined
from auditor.statistics.intervals import Float64Array
from auditor.statistics.membership import rate
from auditor.statistics.paired_differences import gap
from auditor.statistics.units import Units
from auditor.subject import AttackTarget
from defenses.records import BoolArray, IntArray
from reports.measures import SINGLING_OUT
from reports.records.report import Estimate

RATE, OUTSIDE, ADVANTAGE = "singling_out_rate", "singling_out_rate_outside", "singling_out_advantage"


@dataclass(frozen=True)
class SingledOut(Joined):
    """Who is the only one of their side that some predicate describes.

    Attributes:
        inside: (s,) 0 or 1 for each training record looked at; for each group of records, whether one of it is.
        outside: (s,) the same for as many others.
        unit: What a unit is called.
    """

    inside: Float64Array
    outside: Float64Array
    unit: str = "record"

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the share of training records that are singled out, and how much larger it is than that of others."""

        def share(side: Float64Array, level: float) -> Estimate:
            return rate(int(side.sum()), len(side), level=level, unit=self.unit)

        half = 1 - (1 - level) / 2
        return {
            ADVANTAGE: gap(share(self.inside, half), share(self.outside, half), level=level),
            RATE: share(self.inside, level),
            OUTSIDE: share(self.outside, level),
        }


def join_predicates(
    claim: Predicates, included: BoolArray, *, rng: np.random.Generator, units: IntArray | None = None
) -> SingledOut:
    """Look for predicates that exactly one record of a side meets, on two sides of equal size.

    Being the only one depends on how many there are, so the larger side is drawn down to the smaller. The unit is the
    record, not the predicate: many predicates describe one record.

    Args:
        claim: (p, m) which candidates meet each predicate.
        included: (m,) who was in.
        rng: Draws from the larger side.
        units: (m,) whose records they are, where somebody has several; then each owner counts once.

    Raises:
        ValueError: If predicates are not about these candidates.
    """
    if claim.matches.ndim != 2 or claim.matches.shape[1] != len(included):
        raise ValueError(f"matches have shape {claim.matches.shape}; give (p, {len(included)})")
    sides = [np.flatnonzero(included), np.flatnonzero(~included)]
    size = min(map(len, sides))
    found = []
    for side in sides:
        rows = np.sort(rng.choice(side, size, replace=False))
        matches = claim.matches[:, rows]
        described = matches[matches.sum(axis=1) == 1].any(axis=0)
        found.append(Units.of(None if units is None else units[rows]).any(described).astype(np.float64))
    return SingledOut(found[0], found[1], Units.of(units).name)


class SinglingOutKind(ClaimKind):
    """Conditions that one person of the training data meets alone."""

    claims = Predicates
    name = SINGLING_OUT
    title = "Singling out"
    words = "singling out"

    def join(
        self, claim: Predicates, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> SingledOut:
        """Join predicates with who was a member; see `join_predicates`."""
        return join_predicates(claim, question.included, rng=rng, units=question.target.candidates.units)
