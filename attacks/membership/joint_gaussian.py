"""The likelihood ratio of several measurements of one record at once, as correlated Gaussians."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

_RIDGE = 1e-9  # of the mean variance: two views that always agree would leave the covariance singular


def joint_scores(
    target: npt.NDArray[Any], shadows: npt.NDArray[Any], included: npt.NDArray[np.bool_], *, online: bool
) -> Float64Array:
    """Score candidates by LiRA from one or several correlated confidences of each, with few shadows.

    Views of one record err together, so adding up their scores counts the same evidence several times. The covariance
    is that of the residuals around each record's own means, pooled over records, one for shadows that saw the record
    and one for those that did not. Offline, the score is the one-sided z of the weighted sum that tells a common shift
    of all views from no shift best.

    Online, a record's gap between its two means is an estimate from a few shadows each, and in several views its noise
    outweighs it. So it is pulled towards the average gap (empirical Bayes): the covariance of the gaps over records,
    less what the noise of the means explains, is what gaps truly differ by. A record that every shadow saw, or none
    did, has the average gap. With many shadows nothing is left to pull.

    Args:
        target: (q, n) logit confidence of each view of each candidate under the target.
        shadows: (k, q, n) the same under each shadow.
        included: (k, n) which shadow trained on which candidate.
        online: Whether shadows that saw the record are used.

    Returns:
        (n,) float64, higher = member; offline with q = 1 the same as `lira_scores` with fixed variance.

    Raises:
        ValueError: If shapes differ, a value is not finite, or a side has no shadows.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", section VI-B (several queries
    per record as a multivariate normal). Deviation: the covariance is pooled over records, which a few shadows suffice
    for, and offline is the one-sided linear statistic. The shrinkage is ours; for the principle see Efron and Morris
    1973, "Stein's Estimation Rule and Its Competitors".
    """
    values, wide = np.asarray(target, dtype=np.float64), np.asarray(shadows, dtype=np.float64)
    if wide.ndim != 3 or values.shape != wide.shape[1:] or included.shape != (len(wide), wide.shape[2]):
        raise ValueError(
            f"target is {values.shape}, shadows {wide.shape}, included {included.shape}; want (q, n), (k, q, n), (k, n)"
        )
    if not (np.isfinite(values).all() and np.isfinite(wide).all()):
        raise ValueError("a confidence is not finite; take it from logits with signals.logit_confidence")
    outside = _Side(wide, ~included)
    if not outside.counts.any():
        raise ValueError("every shadow saw every record, so there is no model to compare with; train more shadows")
    if not online:
        means = np.where(outside.counts > 0, outside.means, outside.average[:, None])
        weights = np.linalg.solve(outside.covariance, np.ones(len(values)))
        return np.asarray(weights @ (values - means) / np.sqrt(weights.sum()))
    inside = _Side(wide, included)
    if not inside.counts.any():
        raise ValueError("no shadow saw any record, so online scores cannot be had; ask for online=False")
    gaps = _shrunk_gaps(inside, outside)
    # Given the gap, both sides tell where the record lies.
    total = inside.counts * (inside.means - gaps) + outside.counts * outside.means
    means_out = total / (inside.counts + outside.counts)
    return inside.log_density(values - means_out - gaps) - outside.log_density(values - means_out)


def _shrunk_gaps(inside: "_Side", outside: "_Side") -> Float64Array:
    """Return how much higher each view of each record is expected under models that saw it, (q, n)."""
    both = (inside.counts > 0) & (outside.counts > 0)
    if not both.any():
        return np.zeros_like(inside.means)
    gaps = inside.means - outside.means
    average = gaps[:, both].mean(axis=1, keepdims=True)
    spread = (gaps[:, both] - average) @ (gaps[:, both] - average).T / max(int(both.sum()) - 1, 1)
    noise = (
        inside.covariance * (1 / inside.counts[both]).mean() + outside.covariance * (1 / outside.counts[both]).mean()
    )
    size, direction = np.linalg.eigh(spread - noise)
    true = (direction * np.maximum(size, 0)) @ direction.T
    found = np.repeat(average, gaps.shape[1], axis=1)
    for ins, outs in {*zip(inside.counts[both].tolist(), outside.counts[both].tolist(), strict=True)}:
        those = (inside.counts == ins) & (outside.counts == outs)
        own = inside.covariance / ins + outside.covariance / outs
        found[:, those] += true @ np.linalg.solve(true + own, gaps[:, those] - average)
    return found


class _Side:
    """Means per record and view (q, n), and the pooled covariance (q, q), over the shadows that a mask selects."""

    def __init__(self, values: Float64Array, mask: npt.NDArray[np.bool_]) -> None:
        views = values.shape[1]
        self.counts = mask.sum(axis=0)
        chosen = mask[:, None, :]
        self.means = np.where(chosen, values, 0.0).sum(axis=0) / np.maximum(self.counts, 1)
        residuals = np.where(chosen, values - self.means, 0.0).transpose(1, 0, 2).reshape(views, -1)
        freedom = int(np.maximum(self.counts - 1, 0).sum())
        pooled = residuals @ residuals.T / freedom if freedom else np.zeros((views, views))
        scale = float(np.trace(pooled)) / views
        # One model on each side leaves no residual; then any constant will do, since it only scales the score.
        self.covariance = pooled + _RIDGE * scale * np.eye(views) if scale > 0 else np.eye(views)
        seen = self.counts > 0
        self.average = self.means[:, seen].mean(axis=1) if seen.any() else np.zeros(views)

    def log_density(self, residuals: Float64Array) -> Float64Array:
        """Return the log-density (n,) of residuals (q, n), up to the constant that both sides share."""
        factor = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(factor, residuals)
        return np.asarray(-0.5 * np.square(white).sum(axis=0) - np.log(np.diag(factor)).sum())
