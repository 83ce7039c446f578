"""Predicates joined with the truth: how many people of the training data they single out, and how many others."""

from dataclasses import dataclass

import numpy as np

from attacks.protocol import Predicates
from auditor.statistics import membership
from auditor.statistics.intervals import Float64Array
from auditor.statistics.paired_differences import gap
from defenses.records import BoolArray, IntArray
from reports.records.report import Estimate

RATE, OUTSIDE, ADVANTAGE = "singling_out_rate", "singling_out_rate_outside", "singling_out_advantage"


@dataclass(frozen=True)
class SingledOut:
    """Who is the only one of their side that some predicate describes.

    Attributes:
        inside: (s,) 0 or 1 for each training record looked at; for each group of records, whether one of it is.
        outside: (s,) the same for as many others.
        unit: What a unit is called.
    """

    inside: Float64Array
    outside: Float64Array
    unit: str = "record"

    def measures(self, *, level: float) -> dict[str, Estimate]:
        """Return the share of training records that are singled out, and how much larger it is than that of others."""

        def rate(side: Float64Array, level: float) -> Estimate:
            return membership.rate(int(side.sum()), len(side), level=level, unit=self.unit)

        half = 1 - (1 - level) / 2
        return {
            ADVANTAGE: gap(rate(self.inside, half), rate(self.outside, half), level=level),
            RATE: rate(self.inside, level),
            OUTSIDE: rate(self.outside, level),
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
        described = matches[matches.sum(axis=1) == 1].any(axis=0).astype(np.float64)
        if units is not None:
            _, place = np.unique(units[rows], return_inverse=True)
            described = (np.bincount(place, weights=described) > 0).astype(np.float64)
        found.append(described)
    return SingledOut(found[0], found[1], "record" if units is None else "group of records")
