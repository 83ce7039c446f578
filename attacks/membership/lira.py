"""LiRA: the likelihood ratio of a record's confidence under models that saw it and models that did not."""

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.image_views import check_queries
from attacks.membership.joint_gaussian import joint_scores
from attacks.membership.signals import logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]

# Below this many shadows a record's own variance is too noisy an estimate, and the pooled one attacks better.
PER_RECORD_SHADOWS = 64


class Variance(enum.StrEnum):
    """How the spread of a record's confidence over shadow models is estimated."""

    FIXED = "fixed"
    PER_RECORD = "per_record"
    AUTO = "auto"


def lira_scores(
    target: npt.NDArray[Any],
    shadows: npt.NDArray[Any],
    included: npt.NDArray[np.bool_],
    *,
    online: bool,
    variance: Variance | str = Variance.AUTO,
) -> Float64Array:
    """Score candidates by LiRA from logit-scaled confidences.

    Online, the score is the log ratio of two Gaussian likelihoods, with means per record; offline it is the one-sided
    z-score above the models that did not see the record, because unusually low confidence is no sign of membership.
    FIXED variance is that of the residuals around each record's own mean, pooled over records. A record that every
    shadow saw, or none did, gets its missing mean from its other one and the average gap between the two.

    Args:
        target: (n,) logit confidence of each candidate under the target.
        shadows: (k, n) the same under each shadow.
        included: (k, n) which shadow trained on which candidate.
        online: Whether shadows that saw the record are used.
        variance: FIXED, PER_RECORD, or AUTO: per record from 64 shadows up.

    Returns:
        (n,) float64, higher = member; finite for finite input.

    Raises:
        ValueError: If shapes differ, a value is not finite, or (offline) every shadow saw every record.

    Examples:
        >>> included = np.array([[True], [True], [False], [False]])
        >>> float(lira_scores(np.array([3.0]), np.array([[3.0], [2.8], [0.1], [-0.1]]), included, online=True)[0]) > 0
        True

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", Algorithm 1 and section VI-C.
    Deviation: the pooled variance has its degrees of freedom corrected, and offline is ranked by z, not by a CDF.
    """
    values, wide, chosen = _checked(target, shadows, included, Variance(variance))
    outside = _Moments(wide, ~included)
    if not outside.counts.any():
        raise ValueError("every shadow saw every record, so there is no model to compare with; train more shadows")
    if not online:
        mean = np.where(outside.counts > 0, outside.mean, outside.pooled_mean)
        return (values - mean) / np.sqrt(outside.variance(chosen))
    inside = _Moments(wide, included)
    if not inside.counts.any():
        raise ValueError("no shadow saw any record, so online scores cannot be had; ask for online=False")
    both = (inside.counts > 0) & (outside.counts > 0)
    gap = float((inside.mean - outside.mean)[both].mean()) if both.any() else 0.0
    mean_in = np.where(inside.counts > 0, inside.mean, outside.mean + gap)
    mean_out = np.where(outside.counts > 0, outside.mean, inside.mean - gap)
    return _log_density(values, mean_in, inside.variance(chosen)) - _log_density(
        values, mean_out, outside.variance(chosen)
    )


class _Moments:
    """Mean and spread per record over the shadows that a mask selects."""

    def __init__(self, values: Float64Array, mask: npt.NDArray[np.bool_]) -> None:
        self.counts = mask.sum(axis=0)
        at_least_one = np.maximum(self.counts, 1)
        self.mean = np.where(mask, values, 0.0).sum(axis=0) / at_least_one
        residuals = np.where(mask, values - self.mean, 0.0)
        self.squares = np.square(residuals).sum(axis=0)
        freedom = int(np.maximum(self.counts - 1, 0).sum())
        pooled = float(self.squares.sum() / freedom) if freedom else float("nan")
        # One model on each side leaves no residual; then any constant will do, since it only scales the score.
        self.pooled = pooled if pooled > 0 else 1.0
        seen = self.counts > 0
        self.pooled_mean = float(self.mean[seen].mean()) if seen.any() else 0.0

    def variance(self, kind: Variance) -> Float64Array:
        if kind is Variance.FIXED:
            return np.full(self.mean.shape, self.pooled)
        own = self.squares / np.maximum(self.counts - 1, 1)
        # Equal values leave a variance of rounding errors instead of zero, and a score of 1e15.
        return np.where((self.counts > 1) & (own > 1e-12 * self.pooled), own, self.pooled)


def _log_density(values: Float64Array, mean: Float64Array, variance: Float64Array) -> Float64Array:
    return np.asarray(-0.5 * (np.log(2 * np.pi * variance) + np.square(values - mean) / variance))


def _checked(
    target: npt.NDArray[Any], shadows: npt.NDArray[Any], included: npt.NDArray[np.bool_], variance: Variance
) -> tuple[Float64Array, Float64Array, Variance]:
    values, wide = np.asarray(target, dtype=np.float64), np.asarray(shadows, dtype=np.float64)
    if wide.ndim != 2 or wide.shape != included.shape or values.shape != wide.shape[1:]:
        raise ValueError(
            f"target is {values.shape}, shadows {wide.shape}, included {included.shape}; want (n,), (k, n), (k, n)"
        )
    if not (np.isfinite(values).all() and np.isfinite(wide).all()):
        raise ValueError("a confidence is not finite; take it from logits with signals.logit_confidence")
    if variance is Variance.AUTO:
        variance = Variance.PER_RECORD if len(wide) >= PER_RECORD_SHADOWS else Variance.FIXED
    return values, wide, variance


@dataclass(frozen=True)
class LiRA(Attack):
    """Likelihood-ratio attack with shadow models.

    Attributes:
        shadows: Shadow models to train, at least 2.
        online: Whether to use the shadows that saw the record.
        variance: "fixed", "per_record" or "auto".
        queries: Views of each image that are asked about, 1 .. 10: worth it where training flips or moves images. Two
            and more are one joint Gaussian with fixed covariance.
        shrink: Whether the gap between a record's two means is pulled towards the average gap as far as it is noise,
            which finds more with few shadows and small leaks; always so with several queries.
    """

    shadows: int = 16
    online: bool = True
    variance: Variance = Variance.AUTO
    queries: int = 1
    shrink: bool = False

    name = "lira"
    title = "LiRA"
    paper = "Carlini et al. 2022, Membership Inference Attacks From First Principles"
    requires = ThreatModel(frozenset({Capability.LOGITS}), recipe=True)
    usual = True
    example = {"shadows": 8}

    def __post_init__(self) -> None:
        if self.shadows < 2:
            raise ValueError(f"shadows is {self.shadows}; LiRA needs at least 2 shadow models")
        check_queries(self.queries)
        object.__setattr__(self, "variance", Variance(self.variance))
        if self._joint and self.variance is Variance.PER_RECORD:
            raise ValueError(
                "variance is per_record with shrink or several queries, whose spread is fixed: leave it out"
            )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the log likelihood ratio (online) or z-score (offline) of every candidate."""
        y = view.candidates.y
        said = view.shadows.each(self.shadows, queries=self.queries, on_progress=on_progress)
        confidence = np.stack([logit_confidence(one.logits, y) for one in said])
        included = view.shadows.included(self.shadows)
        target = logit_confidence(view.logits_of_views(view.candidates, self.queries), y)
        if self._joint:
            views = (np.atleast_2d(target), confidence.reshape(self.shadows, self.queries, -1))
            scores = joint_scores(*views, included, online=self.online)
        else:
            scores = lira_scores(target, confidence, included, online=self.online, variance=self.variance)
        return MembershipScores(scores, tuple(self._notes(included)))

    @property
    def _joint(self) -> bool:
        return self.queries > 1 or self.shrink

    def _notes(self, included: npt.NDArray[np.bool_]) -> list[str]:
        notes = []
        if self.variance is Variance.AUTO and not self._joint:
            chosen = "per record" if self.shadows >= PER_RECORD_SHADOWS else "fixed (pooled over records)"
            notes.append(f"Variance {chosen}, chosen for {self.shadows} shadow models.")
        counts = included.sum(axis=0)
        lonely = int((counts == len(included)).sum() + ((counts == 0).sum() if self.online else 0))
        if lonely:
            notes.append(f"{lonely} records were in all or none of the shadows; a pooled estimate stands in for them.")
        return notes
