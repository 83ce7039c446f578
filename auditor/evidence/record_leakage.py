"""Whether reconstructions are of the training records: each record's nearest reconstruction, in against out.

A reconstruction that is alike to a training record proves nothing by itself: a class mean is alike to everybody. What
counts is that training records are met more closely than holdout records of the same source. The unit is the record (or
its owner, or its cluster of duplicates), never the reconstruction, of which any number can be made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.statistics import membership
from auditor.statistics.intervals import Float64Array, check_open_unit
from defenses.records import BoolArray
from reports.records.report import Estimate

FALSE_POSITIVE_RATE = 0.01
_BLOCK = 2**23  # labels that are shuffled at once

Statistic = Callable[[BoolArray], Float64Array]


@dataclass(frozen=True)
class RecordLeakage:
    """What reconstructions say about who was in training.

    Attributes:
        auc: Chance that a training record has a nearer reconstruction than a holdout record, 0.5 by guessing.
        tpr: Share of training records met more closely than all but 1% of holdout records.
        p_value: Of the AUC under shuffled labels; small where training records are met more closely.
        tpr_p_value: Of that share under shuffled labels; sees a few copies that the AUC does not.
        copy_rate: Share of reconstructions whose nearest record of all is a training record.
        expected_copy_rate: The same where reconstructions know nothing: the share of training records among all.
        copy_p_value: Of the copy rate under shuffled labels.
        closest_train: (r,) similarity of each reconstruction to its nearest training record.
        closest_holdout: (r,) to its nearest holdout record.
        units: How many independent units there are on both sides.
    """

    auc: Estimate
    tpr: Estimate
    p_value: float
    tpr_p_value: float
    copy_rate: float
    expected_copy_rate: float
    copy_p_value: float
    closest_train: Float64Array
    closest_holdout: Float64Array
    units: tuple[int, int]


def record_leakage(
    similarity_train: npt.ArrayLike,
    similarity_holdout: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    groups_train: npt.ArrayLike | None = None,
    groups_holdout: npt.ArrayLike | None = None,
    level: float = 0.95,
    permutations: int = 9_999,
) -> RecordLeakage:
    """Compare how closely reconstructions meet training records and holdout records.

    Args:
        similarity_train: (r, n) of r reconstructions to n training records, higher is more alike; not NaN.
        similarity_holdout: (r, h) to h holdout records of the same source, drawn at random; best h = n.
        rng: Shuffles the labels.
        groups_train: (n,) owner or cluster of each training record, if records belong together.
        groups_holdout: (h,) the same for the holdout; a group may not be on both sides.
        level: Confidence of the intervals, in (0, 1).
        permutations: Shuffles behind the p-values, at least 1.

    Returns:
        Measures with their intervals and p-values.

    Raises:
        ValueError: If shapes do not fit, a similarity is NaN, a group is on both sides, or there is nothing to compare.

    Examples:
        >>> found = record_leakage(np.eye(200), np.zeros((200, 200)), rng=np.random.default_rng(0))
        >>> found.auc.value, found.copy_rate, found.p_value
        (1.0, 1.0, 0.0001)
    """
    ins, outs = (np.asarray(value, dtype=np.float64) for value in (similarity_train, similarity_holdout))
    _check(ins, outs, permutations)
    check_open_unit(level, name="level")
    both = np.concatenate([ins, outs], axis=1)
    units, sides, unit = _units(ins.shape[1], outs.shape[1], groups_train, groups_holdout)
    order = np.argsort(units, kind="stable")
    first = np.searchsorted(units[order], np.arange(len(sides)))
    met = np.maximum.reduceat(both[:, order], first, axis=1)  # a unit is as near as its nearest record
    nearest = met.max(axis=0)
    auc = membership.auc(nearest, sides, level=level, unit=unit)
    tpr = membership.tpr_at_fpr(nearest, sides, fpr=FALSE_POSITIVE_RATE, level=level, unit=unit)
    # Ties count one half on both sides, so that equal similarities say nothing.
    ranks = _midranks(nearest)
    best = met.max(axis=1, keepdims=True)
    weight = (met == best) / (met == best).sum(axis=1, keepdims=True)
    copied = weight.mean(axis=0)
    statistics = (lambda labels: labels @ ranks, _counts_at_rate(nearest, sides), lambda labels: labels @ copied)
    by_auc, by_tpr, by_copies = _p_values(statistics, sides, rng=rng, permutations=permutations)
    return RecordLeakage(
        auc=auc,
        tpr=tpr,
        p_value=by_auc,
        tpr_p_value=by_tpr,
        copy_rate=float(copied @ sides),
        expected_copy_rate=float(sides.mean()),
        copy_p_value=by_copies,
        closest_train=ins.max(axis=1),
        closest_holdout=outs.max(axis=1),
        units=(int(sides.sum()), int((~sides).sum())),
    )


def pair(similarity: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Pair the reconstructions of a batch with its true records, one with one, so that they are alike in sum.

    Args:
        similarity: (B, B) of reconstructions to records, higher is more alike.

    Returns:
        (B,) the record of each reconstruction.

    Raises:
        ValueError: If it is not square, or a similarity is not finite.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem"; solved by SciPy.
    """
    from scipy.optimize import linear_sum_assignment

    alike = np.asarray(similarity, dtype=np.float64)
    if alike.ndim != 2 or alike.shape[0] != alike.shape[1] or not np.isfinite(alike).all():
        raise ValueError(f"similarity has shape {alike.shape}; it must be square and finite")
    return np.asarray(linear_sum_assignment(alike, maximize=True)[1])


def _check(ins: Float64Array, outs: Float64Array, permutations: int) -> None:
    if ins.ndim != 2 or outs.ndim != 2 or len(ins) != len(outs) or not ins.size or not outs.size:
        raise ValueError(
            f"similarities have shapes {ins.shape} and {outs.shape}; give (reconstructions, records) on both sides, "
            "with at least one of each"
        )
    broken = int(np.isnan(ins).sum() + np.isnan(outs).sum())
    if broken:
        raise ValueError(f"{broken} similarities are NaN; reconstructions must be finite")
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; at least 1 is needed")


def _units(
    n: int, h: int, groups_train: npt.ArrayLike | None, groups_holdout: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_], str]:
    """Return the unit of each record (n + h,), whether each unit was in training (u,), and what it is called."""
    if groups_train is None and groups_holdout is None:
        return np.arange(n + h), np.arange(n + h) < n, "record"
    if groups_train is None or groups_holdout is None:
        raise ValueError("groups are given on one side only; give them for training and holdout records")
    one, other = np.asarray(groups_train), np.asarray(groups_holdout)
    if one.shape != (n,) or other.shape != (h,):
        raise ValueError(f"groups have shapes {one.shape} and {other.shape}; give one for each of {n} and {h} records")
    shared = np.intersect1d(one, other)
    if len(shared):
        raise ValueError(f"group {shared[0]} is in training and in the holdout; split by group")
    names, place = np.unique(np.concatenate([one, other]), return_inverse=True)
    sides = np.zeros(len(names), dtype=np.bool_)
    sides[place[:n]] = True
    return place, sides, "group of records"


def _p_values(
    statistics: Sequence[Statistic], sides: BoolArray, *, rng: np.random.Generator, permutations: int
) -> list[float]:
    """Return the share of shuffled labels whose statistic is at least that of the true ones, which count too."""
    found = [float(statistic(sides[None])[0]) for statistic in statistics]
    least = np.array([value - 1e-9 * max(1.0, abs(value)) for value in found])
    as_large = np.ones(len(found), dtype=np.int64)
    block = max(1, _BLOCK // len(sides))
    for start in range(0, permutations, block):
        count = min(block, permutations - start)
        shuffled = rng.permuted(np.tile(sides, (count, 1)), axis=1)
        as_large += [int((statistic(shuffled) >= low).sum()) for statistic, low in zip(statistics, least, strict=True)]
    return [float(number / (1 + permutations)) for number in as_large]


def _counts_at_rate(nearest: Float64Array, sides: BoolArray) -> Statistic:
    """Return what counts the training units that are met more closely than all but 1% of holdout units."""
    order = np.argsort(-nearest, kind="stable")
    values, allowed = nearest[order], int(FALSE_POSITIVE_RATE * (~sides).sum())

    def counts(labels: BoolArray) -> Float64Array:
        ordered = labels[:, order]
        outside = (~ordered).cumsum(axis=1)
        # Units that are met as closely as the first holdout unit too many do not count, whatever their order.
        limit = values[np.minimum((outside <= allowed).sum(axis=1), len(order) - 1)]
        return np.asarray((ordered & (values > limit[:, None])).sum(axis=1), dtype=np.float64)

    return counts


def _midranks(values: Float64Array) -> Float64Array:
    from scipy import stats

    return np.asarray(stats.rankdata(values), dtype=np.float64)
