"""Whether a target fits the two declared sides as models do that surely left out one and trained on the other.

Shadow models draw who is in by their own coins, so what they say about a record that they left out, and about one that
they trained on, is known. If the owner of the target tells the truth and trained it by the stated recipe, the target is
one more such model: exchangeable with the shadows, each on its own records. The unit of every interval here is the
model, never the record: all records share the luck of one training.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import expit

from defenses.records import BoolArray

Float64Array = npt.NDArray[np.float64]

FEWEST_SHADOWS = 4
"""With fewer shadow models their spread is hardly known, and Student's quantile is above 5."""


MEMBERS_AT_LEAST = 0.5
"""Members are doubted if surely less than this share looks trained on. One training in a hundred ends badly and fits
its members visibly less than others do, far more often than a normal spread allows: a value below 1 alone is no lie."""

POWER = 0.9
"""How often the least share that would be seen is seen."""


@dataclass(frozen=True)
class SideFit:
    """How the target fits one declared side.

    Attributes:
        value: Where the side lies between what shadows leave out (0) and what they train on (1); where they fit both
            alike, the probability of the true class beyond what shadows give it on such records.
        low: Lower end of a two-sided interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HoldoutFit:
    """How the target fits both declared sides.

    Attributes:
        nonmembers: The declared non-members; 0 is expected, and more than 0 is surely so if `low` is above it.
        members: The declared members; 1 is expected.
        level: Confidence of each two-sided interval.
        models: Shadow models behind it.
        separated: Whether shadows fit what they trained on visibly better than what they left out. If not, the values
            are probabilities, not shares, and nothing is said about members.
        least_seen: The share of non-members trained on that would be seen nine times in ten; may be above 1.
    """

    nonmembers: SideFit
    members: SideFit
    level: float
    models: int
    separated: bool
    least_seen: float

    @property
    def nonmembers_fitted(self) -> bool:
        """Whether non-members are surely fitted better than what shadows leave out."""
        return self.nonmembers.low > 0

    @property
    def nonmembers_missed(self) -> bool:
        """Whether they are surely fitted worse."""
        return self.nonmembers.high < 0

    @property
    def members_missed(self) -> bool:
        """Whether members are surely fitted worse than what shadows train on."""
        return self.separated and self.members.high < 1

    @property
    def members_doubted(self) -> bool:
        """Whether surely fewer than half of the members look trained on."""
        return self.separated and self.members.high < MEMBERS_AT_LEAST

    @property
    def swapped(self) -> bool:
        """Whether each side looks more like the other one."""
        return self.separated and self.nonmembers_fitted and self.nonmembers.value > self.members.value


def fit_of_sides(
    scores: npt.ArrayLike, declared: npt.ArrayLike, *, shadows: npt.ArrayLike, included: npt.ArrayLike, level: float
) -> HoldoutFit:
    """Compare a target's fit of its declared members and non-members with the fit of shadow models.

    Each record has an IN and an OUT mean over the models, leaving out the one that is looked at, and all have one
    variance (by the median of residuals). The posterior probability of IN at even odds, averaged over a side, is that
    side's figure: bounded, so that a few extreme records cannot carry it, and weighted toward records that tell.
    Figures of the shadows on their own sides give the prediction interval for the target's (Student's t with K - 1
    degrees of freedom, which takes figures of models as approximately normal). Where IN and OUT do not separate, as
    under strong noise, the mean probability of the true class takes the posterior's place.

    Args:
        scores: (m,) the target's logit-scaled confidence in the true class; higher is the better fit.
        declared: (m,) bool: who is said to have been a member.
        shadows: (K, m) the same scores of shadow models.
        included: (K, m) bool: who was in each of them.
        level: Confidence of each two-sided interval.

    Returns:
        The fit of both sides.

    Raises:
        ValueError: If shapes differ, there are fewer than 4 shadows, a side is empty, a score is not finite, or no
            record was both in and out of some shadow.

    Examples:
        >>> fit = fit_of_sides(target, declared, shadows=said, included=coins, level=0.99)   # doctest: +SKIP
        >>> fit.nonmembers_fitted                                                            # doctest: +SKIP
        False

    Source: the per-record Gaussians with one variance are those of Carlini et al. (2022), "Membership Inference Attacks
    From First Principles"; the comparison of models with models is ours.
    """
    said = np.vstack([np.asarray(scores, dtype=np.float64)[None], np.asarray(shadows, dtype=np.float64)])
    inside = np.vstack([np.asarray(declared, dtype=np.bool_)[None], np.asarray(included, dtype=np.bool_)])
    _check(said, inside)
    posteriors = np.array([_posteriors(said, inside, k) for k in range(len(said))])
    outs, ins = posteriors[:, 0], posteriors[:, 1]
    gap = float(ins[1:].mean() - outs[1:].mean())
    # At the interval's reach itself a share is seen every other time.
    least = (_reach(outs[1:], level) + _reach(outs[1:], 2 * POWER - 1)) / gap if gap > 0 else np.inf
    if gap > _reach(outs[1:], level):
        zero = float(outs[1:].mean())
        return HoldoutFit(
            nonmembers=_placed(outs, zero, gap, level),
            members=_placed(ins, zero, gap, level),
            level=level,
            models=len(said) - 1,
            separated=True,
            least_seen=float(least),
        )
    means = np.array([_probabilities(said, inside, k) for k in range(len(said))])
    return HoldoutFit(
        nonmembers=_placed(means[:, 0], float(means[1:, 0].mean()), 1.0, level),
        members=_placed(means[:, 1], float(means[1:, 1].mean()), 1.0, level),
        level=level,
        models=len(said) - 1,
        separated=False,
        least_seen=float(least),
    )


def _check(said: Float64Array, inside: BoolArray) -> None:
    if said.shape != inside.shape:
        raise ValueError(f"scores are {said.shape} and memberships {inside.shape}, target first; they must agree")
    if len(said) - 1 < FEWEST_SHADOWS:
        raise ValueError(f"{len(said) - 1} shadow models; at least {FEWEST_SHADOWS} are needed")
    if not np.isfinite(said).all():
        raise ValueError("a score is not finite")
    if not inside.any(axis=1).all() or inside.all(axis=1).any():
        raise ValueError("a model has no record on one side; each must have trained on some and left out some")


def _posteriors(said: Float64Array, inside: BoolArray, which: int) -> tuple[float, float]:
    """Return one model's mean posterior of IN over its OUT and its IN records, by what all other models say."""
    outs, ins = _means_of_others(said, ~inside, which), _means_of_others(said, inside, which)
    others = np.arange(len(said)) != which
    residuals = np.where(inside[others], said[others] - ins, said[others] - outs)
    known = np.isfinite(ins) & np.isfinite(outs)
    if not known[inside[which]].any() or not known[~inside[which]].any():
        raise ValueError("no record was in some of the shadow models and out of others; train more of them")
    # By the median, or one absurd score of the target would widen the noise until nothing separates any more.
    freedom = (len(said) - 1) / (len(said) - 1 - 2)  # two means were taken off
    scale = float(np.median(np.abs(residuals[:, known]))) / stats.norm.ppf(0.75)
    variance = max(freedom * scale**2, np.finfo(np.float64).tiny)
    shift = ins - outs
    posterior = expit(shift * (said[which] - (ins + outs) / 2) / variance)
    return float(posterior[known & ~inside[which]].mean()), float(posterior[known & inside[which]].mean())


def _probabilities(said: Float64Array, inside: BoolArray, which: int) -> tuple[float, float]:
    """Return how much more probability one model gives the true class than others do, on its OUT and IN records."""
    chances = expit(said)
    found = []
    for side in (~inside, inside):
        beyond = (chances[which] - _means_of_others(chances, side, which))[side[which]]
        found.append(float(np.nanmean(beyond)) if np.isfinite(beyond).any() else 0.0)
    return found[0], found[1]


def _means_of_others(values: Float64Array, mask: BoolArray, which: int) -> Float64Array:
    """Return (m,) the mean over all models but one that have a record in the mask; NaN where none has."""
    counts = mask.sum(axis=0) - mask[which]
    sums = (values * mask).sum(axis=0) - values[which] * mask[which]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _reach(figures: Float64Array, level: float) -> float:
    """Return half the width of the prediction interval for one more figure like these."""
    count = len(figures)
    quantile = float(stats.t.ppf((1 + level) / 2, count - 1))
    return quantile * float(figures.std(ddof=1)) * float(np.sqrt(1 + 1 / count))


def _placed(figures: Float64Array, zero: float, gap: float, level: float) -> SideFit:
    """Return the target's figure, which stands first, on the scale from 0 to 1 with its interval."""
    value, half = (float(figures[0]) - zero) / gap, _reach(figures[1:], level) / gap
    return SideFit(value, value - half, value + half)
