"""How alike reconstructions are to the training records on average, and how much more than to others."""

import numpy as np
import numpy.typing as npt

from auditor.evidence.reconstruction_comparison import Reconstructed
from auditor.statistics.means import bounded_mean
from defenses.records import BoolArray
from reports.records.report import Estimate

METHOD = "betting on the mean of bounded values"


def mean_similarity(
    found: Reconstructed, closest: npt.NDArray[np.float64], included: BoolArray, *, level: float, unit: str
) -> Estimate:
    """Estimate the mean similarity to the training records: to the very record that was behind each, where known.

    Args:
        found: Reconstructions compared with the candidates.
        closest: (u,) similarity of each unit to its most similar reconstruction.
        included: (u,) who was in.
        level: Confidence in (0, 1).
        unit: What one of `closest` stands for.

    Returns:
        The mean with limits that hold for any shape; without an end of the measure a reason. What unrelated records
        would reach is above 0: see `similarity_gap`.
    """
    if found.bounds is None:
        return _endless(found, level)
    paired = found.paired
    values = closest[included] if paired is None else paired.similarity
    return _mean(values, found.bounds, level=level, unit=unit if paired is None else "reconstruction")


def similarity_gap(
    found: Reconstructed, closest: npt.NDArray[np.float64], included: BoolArray, *, level: float, unit: str
) -> Estimate:
    """Estimate how much more alike training records are to reconstructions than other records are, on average.

    Where the record behind each reconstruction is known, the other one is the most similar of its class that was not
    in; else the mean over the records that were not in is subtracted, each mean with half of the error. Arguments as in
    `mean_similarity`.
    """
    if found.bounds is None:
        return _endless(found, level)
    low, high = found.bounds
    width = high - low
    if found.paired is not None:
        beyond = found.paired.similarity - found.paired.others
        beyond = beyond[np.isfinite(beyond)]
        if not beyond.size:
            reason = "no record of the same class was left out, so there is nothing to compare with"
            return Estimate(method=METHOD, level=level, n=0, unit="reconstruction", reason=reason)
        return _mean(beyond, (-width, width), level=level, unit="reconstruction")
    if included.all() or not included.any():
        reason = "records on both sides are needed to compare"
        return Estimate(method=METHOD, level=level, n=len(included), unit=unit, reason=reason)
    half = (1 - level) / 2
    inside, outside = (bounded_mean(closest[side], bounds=found.bounds, error=half) for side in (included, ~included))
    return Estimate(
        value=inside[0] - outside[0],
        low=inside[1] - outside[2],
        high=inside[2] - outside[1],
        level=level,
        method=f"{METHOD}, both sides",
        n=len(included),
        unit=unit,
    )


def _mean(values: npt.NDArray[np.float64], bounds: tuple[float, float], *, level: float, unit: str) -> Estimate:
    mean, low, high = bounded_mean(values, bounds=bounds, error=1 - level)
    return Estimate(value=mean, low=low, high=high, level=level, method=METHOD, n=len(values), unit=unit)


def _endless(found: Reconstructed, level: float) -> Estimate:
    reason = f"{found.measure} has no largest and least value, and without them no interval of a mean can be given"
    return Estimate(method=METHOD, level=level, reason=reason)
