"""Scores as pictures: the ROC curve with its band, and histograms of members and non-members."""

import math

import numpy as np
import numpy.typing as npt

from auditor.statistics.intervals import bracketed_tpr, check_open_unit, check_scores
from reports.records.report import Histogram, RocCurve

_FAR = 1e290  # widths of bins are finite and not zero within this


def roc_curve(scores: npt.ArrayLike, members: npt.ArrayLike, *, level: float, points: int = 100) -> RocCurve:
    """Trace the ROC curve with a band that holds at all its points at once.

    Each point is `tpr_at_fpr` with its share of the error (Bonferroni), which unlike a uniform band stays narrow at low
    rates. Half of the points lie evenly in log(fpr) from 1 / non-members up, half evenly in fpr; the last is (1, 1).
    Takes what `auditor.statistics.membership.auc` takes, with `level` for the whole band, and at most how many
    `points`, 4 .. 200.

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
    """Count members' and non-members' scores over common bins of equal width, at most so many.

    The bins span at least the 0.5% to 99.5% quantiles of the finite scores; what lies outside is counted in the
    outermost bins. Their edges are whole multiples of 1, 2 or 5 times a power of ten: a quantile itself gives away the
    score of a record, by which whoever has the model could find it. ValueError if no score is finite, one is NaN, or
    `bins` is not in 1 .. 1000.
    """
    if not 1 <= bins <= 1000:
        raise ValueError(f"bins is {bins}; it must lie in 1..1000")
    values, bits = check_scores(scores, members)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"none of {values.size} scores is finite; a histogram needs at least 1")
    low, high = (float(edge) for edge in np.quantile(finite, [0.005, 0.995]))
    low, high = max(low, -_FAR), min(high, _FAR)
    if not high - low > max(1e-9 * max(abs(low), abs(high)), 1 / _FAR):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    edges = _round_edges(low, high, bins)
    inside = np.clip(values, edges[0], edges[-1])
    return Histogram(
        edges=edges.tolist(),
        members=np.histogram(inside[bits], edges)[0].tolist(),
        nonmembers=np.histogram(inside[~bits], edges)[0].tolist(),
    )


def _round_edges(low: float, high: float, bins: int) -> npt.NDArray[np.float64]:
    """Return the edges of at most so many bins of a round width that cover a range."""
    power = math.floor(math.log10((high - low) / bins))
    for width in (float(f"{step}e{power + up}") for up in (0, 1) for step in (1, 2, 5)):
        first, last = math.floor(low / width), math.ceil(high / width)
        if last - first <= bins:
            break
    # Not first * width, which writes 0.30000000000000004.
    return np.array([float(f"{place * width:.15g}") for place in range(first, max(last, first + 1) + 1)])
