"""Reconstructions joined with the truth: how near they come to each candidate, who copied, and what would be seen."""

from dataclasses import dataclass

import numpy as np

from attacks.protocol import Reconstructions
from attacks.similarity import Similarity, similarities
from auditor.evidence.record_leakage import RecordLeakage, pair, record_leakage
from auditor.statistics.intervals import Float64Array
from auditor.statistics.membership import auc
from auditor.statistics.units import Units
from defenses.records import BoolArray, IntArray, Records

PLANTED = (0.01, 0.03, 0.1)
PLANTINGS, SURELY = 20, 0.8  # a share of copies would be seen if at least so many of so many plantings are
PERMUTATIONS = 499  # of each planting: enough to tell p-values of ALPHA / 3
FOLDS = 5
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
        least_seen: The smallest planted share of copies, of 1, 3 and 10%, that this very comparison flags in at least
            80% of 20 plantings; None if it is none of them, so that its silence says nothing.
        inside: The training record that each reconstruction is most similar to.
        outside: The other record that each is most similar to.
        class_means: AUC that means of each class of candidates reach as reconstructions; each candidate is compared
            with means over others, which do not know it.
        paired: How near reconstructions come to the very records that they were made of, where that is known.
        bounds: Least and largest similarity there can be; None where it has no end.
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
    bounds: tuple[float, float] | None = None


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
    among = known[name](candidates.x[included], candidates.x)
    shares = sorted({_copies(share, len(claim.x)) for share in PLANTED})
    least = next((copies for copies in shares if _would_be_seen(copies, alike, among, candidates, included, rng)), None)
    return Reconstructed(
        count=len(claim.x),
        measure=known[name].title,
        closest=alike.max(axis=0),
        leakage=leakage,
        least_seen=None if least is None else least / len(claim.x),
        inside=_nearest(alike, included),
        outside=_nearest(alike, ~included),
        class_means=_of_class_means(known[name], candidates, included, rng),
        paired=None if victims is None else _paired(alike, candidates, included, victims),
        bounds=known[name].bounds,
    )


def _nearest(alike: Float64Array, side: BoolArray) -> Nearest:
    of_side = np.where(side, alike, -np.inf)
    return Nearest(of_side.argmax(axis=1), of_side.max(axis=1))


def _copies(share: float, count: int) -> int:
    return max(1, round(share * count))


def _would_be_seen(
    copies: int,
    alike: Float64Array,
    among: Float64Array,
    candidates: Records,
    included: BoolArray,
    rng: np.random.Generator,
) -> bool:
    """Return whether so many copies in place of reconstructions are flagged in most plantings."""
    seen = 0
    for planting in range(PLANTINGS):
        if seen + PLANTINGS - planting < SURELY * PLANTINGS or seen >= SURELY * PLANTINGS:
            break
        planted = alike.copy()
        rows = rng.choice(len(alike), copies, replace=False)
        planted[rows] = among[rng.choice(len(among), copies, replace=copies > len(among))]
        seen += flagged(_judged(planted, included, candidates, rng, permutations=PERMUTATIONS))
    return seen >= SURELY * PLANTINGS


def _of_class_means(measure: Similarity, candidates: Records, included: BoolArray, rng: np.random.Generator) -> float:
    """Return the AUC of class means; a candidate, and its unit, is compared with means of the other folds only."""
    units = Units.of(candidates.units)
    place = np.arange(len(candidates)) if units.place is None else units.place
    fold = (rng.permutation(int(place.max()) + 1) % FOLDS)[place]
    closest, inside = np.full(len(candidates), -np.inf), included
    for number in range(FOLDS):
        rest, own = candidates.take(fold != number), fold == number
        if len(rest) and own.any():
            means = np.stack([rest.x[rest.y == label].mean(axis=0) for label in np.unique(rest.y)])
            closest[own] = measure(means, candidates.x[own]).max(axis=0)
    return auc(units.highest(closest), units.any(inside), level=0.95).value or 0.0


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


def _judged(
    alike: Float64Array,
    included: BoolArray,
    candidates: Records,
    rng: np.random.Generator,
    *,
    permutations: int = 1_999,
) -> RecordLeakage:
    units = candidates.units
    return record_leakage(
        alike[:, included],
        alike[:, ~included],
        groups_train=None if units is None else units[included],
        groups_holdout=None if units is None else units[~included],
        rng=rng,
        permutations=permutations,
    )


def by_chance(found: Reconstructed) -> str:
    """Return the smallest of the three p-values with what it is about."""
    leakage = found.leakage
    least, what = min(
        (leakage.p_value, "nearness of all"),
        (leakage.tpr_p_value, "nearness of a few"),
        (leakage.copy_p_value, "copies"),
    )
    return f"{what}, p {least:.2g}"


def in_words(found: Reconstructed) -> list[str]:
    """Return what people read of it, one sentence each."""
    leakage = found.leakage
    seen = (
        "Planted copies of every tenth reconstruction would not surely have been seen, so silence here says nothing."
        if found.least_seen is None
        else f"If {round(found.least_seen * found.count):,} of the {found.count:,} reconstructions had been copies, "
        f"that would have been seen (in at least {SURELY:.0%} of {PLANTINGS} plantings)."
    )
    beside = []
    if found.paired is not None:
        nearer = float((found.paired.similarity > found.paired.others).mean())
        beside.append(
            f"Put beside the records that they were made of, the median similarity is "
            f"{np.median(found.paired.similarity):.3g}; {nearer:.0%} are nearer to their own record than to any record "
            "of its class that was not in."
        )
    means = f"Class means of other candidates reach an AUC of {found.class_means:.3f} in their place."
    return [
        *beside,
        f"{found.count:,} reconstructions, compared by {found.measure}: {leakage.copy_rate:.0%} are nearest to a "
        f"training record where {leakage.expected_copy_rate:.0%} are by chance (p {leakage.copy_p_value:.2g}).",
        f"Training records are met more closely than others with p {leakage.p_value:.2g}, and at 1% false alarms with "
        f"p {leakage.tpr_p_value:.2g}.",
        means,
        seen,
    ]
