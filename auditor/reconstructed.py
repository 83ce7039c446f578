"""Reconstructions joined with the truth: how near they come to each candidate, who copied, and what would be seen."""

from dataclasses import dataclass

import numpy as np

from attacks.protocol import Reconstructions
from attacks.similarity import similarities
from auditor.intervals import Float64Array
from auditor.record_leakage import RecordLeakage, record_leakage
from defenses.records import BoolArray, Records

PLANTED = (0.01, 0.03, 0.1)
ALPHA = 0.05


@dataclass(frozen=True)
class Reconstructed:
    """What reconstructions say about the candidates.

    Attributes:
        count: How many reconstructions there are, r.
        measure: What similarity is measured by.
        closest: (m,) similarity of each candidate to its most similar reconstruction.
        leakage: Training records against the others.
        least_seen: The smallest planted share of copies, of 1, 3 and 10%, that this very comparison flags; None if it
            flags none of them, so that its silence says nothing.
    """

    count: int
    measure: str
    closest: Float64Array
    leakage: RecordLeakage
    least_seen: float | None


def flagged(found: RecordLeakage) -> bool:
    """Return whether any of the three p-values is small, paid for by their number."""
    return min(found.p_value, found.tpr_p_value, found.copy_p_value) <= ALPHA / 3


def compare(
    claim: Reconstructions,
    candidates: Records,
    included: BoolArray,
    *,
    rng: np.random.Generator,
    measure: str | None = None,
) -> Reconstructed:
    """Compare reconstructions with the candidates, those that were in against those that were not.

    Args:
        claim: r reconstructions.
        candidates: (m) records, members and others alike in kind and source.
        included: (m,) who was in.
        rng: Shuffles labels, and plants copies.
        measure: Name of a measure of `attacks.similarity`; the usual one for the kind of record by default.

    Returns:
        Similarities, the verdict statistics, and the smallest leak that would have been seen.

    Raises:
        ValueError: If reconstructions have another shape than records, or there is no such measure.
    """
    known = similarities(candidates.kind)
    name = measure or next(iter(known))
    if name not in known:
        raise ValueError(f"measure {name!r} does not fit such records; there are {', '.join(known)}")
    alike = known[name](claim.x, candidates.x)
    leakage = _judged(alike, included, candidates, rng)
    least = None
    for share in PLANTED:
        copies = max(1, round(share * len(claim.x)))
        copied = rng.choice(np.flatnonzero(included), copies, replace=copies > included.sum())
        planted = alike.copy()
        planted[rng.choice(len(claim.x), copies, replace=False)] = known[name](candidates.x[copied], candidates.x)
        if flagged(_judged(planted, included, candidates, rng)):
            least = share
            break
    return Reconstructed(len(claim.x), known[name].title, alike.max(axis=0), leakage, least)


def _judged(alike: Float64Array, included: BoolArray, candidates: Records, rng: np.random.Generator) -> RecordLeakage:
    units = candidates.units
    return record_leakage(
        alike[:, included],
        alike[:, ~included],
        groups_train=None if units is None else units[included],
        groups_holdout=None if units is None else units[~included],
        rng=rng,
        permutations=1_999,
    )


def in_words(found: Reconstructed) -> list[str]:
    """Return what people read of it, one sentence each."""
    leakage = found.leakage
    seen = (
        "A planted copy of every tenth reconstruction would not have been seen, so silence here says nothing."
        if found.least_seen is None
        else f"If {found.least_seen:.0%} of the reconstructions had been copies, that would have been seen."
    )
    return [
        f"{found.count:,} reconstructions, compared by {found.measure}: {leakage.copy_rate:.0%} are nearest to a "
        f"training record where {leakage.expected_copy_rate:.0%} are by chance (p {leakage.copy_p_value:.2g}).",
        f"Training records are met more closely than others with p {leakage.p_value:.2g}, and at 1% false alarms with "
        f"p {leakage.tpr_p_value:.2g}.",
        seen,
    ]
