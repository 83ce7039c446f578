"""Reconstructions joined with the truth: how near they come to each candidate, who copied, and what would be seen."""

from dataclasses import dataclass

import numpy as np

from attacks.protocol import Reconstructions
from attacks.similarity import Similarity, similarities
from auditor.intervals import Float64Array
from auditor.metrics import auc, by_unit
from auditor.record_leakage import RecordLeakage, pair, record_leakage
from defenses.records import BoolArray, IntArray, Records

PLANTED = (0.01, 0.03, 0.1)
ALPHA = 0.05


@dataclass(frozen=True)
class Nearest:
    """For each reconstruction the candidate of one side that is most like it.

    Attributes:
        record: (r,) the candidate.
        similarity: (r,) to it.
    """

    record: IntArray
    similarity: Float64Array


@dataclass(frozen=True)
class Paired:
    """Reconstructions beside the records behind them, one with one within each participant's batch.

    Attributes:
        record: (r,) the candidate behind each reconstruction.
        similarity: (r,) to that record.
        others: (r,) to the most similar record of the same class that was not in; minus infinity where there is none.
    """

    record: IntArray
    similarity: Float64Array
    others: Float64Array


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
        inside: The training record that each reconstruction is most similar to.
        outside: The other record that each is most similar to.
        class_means: AUC that the means of each class of candidates reach as reconstructions, which know nobody.
        paired: How near reconstructions come to the very records that they were made of, where that is known.
    """

    count: int
    measure: str
    closest: Float64Array
    leakage: RecordLeakage
    least_seen: float | None
    inside: Nearest
    outside: Nearest
    class_means: float
    paired: Paired | None = None


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
    victims: IntArray | None = None,
) -> Reconstructed:
    """Compare reconstructions with the candidates, those that were in against those that were not.

    Args:
        claim: r reconstructions.
        candidates: (m) records, members and others alike in kind and source.
        included: (m,) who was in.
        rng: Shuffles labels, and plants copies.
        measure: Name of a measure of `attacks.similarity`; the usual one for the kind of record by default.
        victims: (V, B) candidates behind the reconstructions, which then come participant by participant; or None.

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
    return Reconstructed(
        count=len(claim.x),
        measure=known[name].title,
        closest=alike.max(axis=0),
        leakage=leakage,
        least_seen=least,
        inside=_nearest(alike, included),
        outside=_nearest(alike, ~included),
        class_means=_of_class_means(known[name], candidates, included),
        paired=None if victims is None else _paired(alike, candidates, included, victims),
    )


def _nearest(alike: Float64Array, side: BoolArray) -> Nearest:
    of_side = np.where(side, alike, -np.inf)
    return Nearest(of_side.argmax(axis=1), of_side.max(axis=1))


def _of_class_means(measure: Similarity, candidates: Records, included: BoolArray) -> float:
    means = np.stack([candidates.x[candidates.y == label].mean(axis=0) for label in np.unique(candidates.y)])
    closest, inside = measure(means, candidates.x).max(axis=0), included
    if candidates.units is not None:
        closest, inside = by_unit(closest, inside, candidates.units)
    return auc(closest, inside, level=0.95).value or 0.0


def _paired(alike: Float64Array, candidates: Records, included: BoolArray, victims: IntArray) -> Paired:
    if alike.shape[0] != victims.size:
        raise ValueError(f"there are {alike.shape[0]} reconstructions of {victims.size} records; give one of each")
    record = victims.copy()
    for participant, own in enumerate(victims):
        rows = slice(participant * len(own), (participant + 1) * len(own))
        record[participant] = own[pair(alike[rows, own])]
    flat = record.reshape(-1)
    rivals = ~included[None, :] & (candidates.y[None, :] == candidates.y[flat][:, None])
    others = np.where(rivals, alike, -np.inf).max(axis=1)
    return Paired(flat, alike[np.arange(len(flat)), flat], others)


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
    beside = []
    if found.paired is not None:
        nearer = float((found.paired.similarity > found.paired.others).mean())
        beside.append(
            f"Put beside the records that they were made of, the median similarity is "
            f"{np.median(found.paired.similarity):.3g}; {nearer:.0%} are nearer to their own record than to any record "
            "of its class that was not in."
        )
    means = f"Class means, which know nobody, reach an AUC of {found.class_means:.3f} in their place."
    return [
        *beside,
        f"{found.count:,} reconstructions, compared by {found.measure}: {leakage.copy_rate:.0%} are nearest to a "
        f"training record where {leakage.expected_copy_rate:.0%} are by chance (p {leakage.copy_p_value:.2g}).",
        f"Training records are met more closely than others with p {leakage.p_value:.2g}, and at 1% false alarms with "
        f"p {leakage.tpr_p_value:.2g}.",
        means,
        seen,
    ]
