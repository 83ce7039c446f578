"""Scores as pictures: the ROC curve with its band, and histograms of members and non-members."""

import numpy as np
import numpy.typing as npt

from auditor.intervals import bracketed_tpr, check_open_unit, check_scores
from reports.record import Histogram, RocCurve


def roc_curve(scores: npt.ArrayLike, members: npt.ArrayLike, *, level: float, points: int = 100) -> RocCurve:
    """Trace the ROC curve with a band that holds at all its points at once.

    Each point is `tpr_at_fpr` with its share of the error (Bonferroni), which unlike a uniform band stays narrow at low
    rates. Half of the points lie evenly in log(fpr) from 1 / non-members up, half evenly in fpr; the last is (1, 1).
    Takes what `auditor.metrics.auc` takes, with `level` for the whole band, and at most how many `points`, 4 .. 200.

    Raises:
        ValueError: If a side is empty, a score is NaN, or an argument is out of range.
    """
    error = 1 - check_open_unit(level, name="level")
    if not 4 <= points <= 200:
        raise ValueError(f"points is {points}; it must lie in 4..200")
    values, bits = check_scores(scores, members)
    ins, outs = values[bits], values[~bits]
    if not ins.size or not outs.size:
        raise ValueError(f"no ROC curve of {ins.size} members and {outs.size} non-members; both are needed to compare")
    least = 1 / len(outs)
    small = np.geomspace(least, 1, points // 2, endpoint=False)
    even = np.linspace(0, 1, points - points // 2 + 1)[1:-1]
    fpr = np.unique(np.concatenate([small, even[even >= least]]))
    fpr = fpr[fpr < 1]  # one non-member resolves nothing but the corner
    tpr, low, high = bracketed_tpr(ins, outs, fpr, error=error / max(len(fpr), 1))
    return RocCurve(
        fpr=[*fpr.tolist(), 1.0],
        tpr=[*tpr.tolist(), 1.0],
        tpr_low=[*low.tolist(), 1.0],
        tpr_high=[*high.tolist(), 1.0],
        level=level,
        method="Clopper-Pearson between order statistics, simultaneous over the points (Bonferroni)",
    )


def histogram(scores: npt.ArrayLike, members: npt.ArrayLike, *, bins: int = 40) -> Histogram:
    """Count members' and non-members' scores over common bins of equal width.

    The bins span the 0.5% to 99.5% quantiles of the finite scores; what lies outside is counted in the outermost bins.
    ValueError if no score is finite, one is NaN, or `bins` is not in 1 .. 1000.
    """
    if not 1 <= bins <= 1000:
        raise ValueError(f"bins is {bins}; it must lie in 1..1000")
    values, bits = check_scores(scores, members)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"none of {values.size} scores is finite; a histogram needs at least 1")
    low, high = (float(edge) for edge in np.quantile(finite, [0.005, 0.995]))
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    edges = np.linspace(low, high, bins + 1)
    inside = np.clip(values, low, high)
    return Histogram(
        edges=edges.tolist(),
        members=np.histogram(inside[bits], edges)[0].tolist(),
        nonmembers=np.histogram(inside[~bits], edges)[0].tolist(),
    )
