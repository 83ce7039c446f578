"""How often a training saw each record, read off a linear model without noise."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.crafted import linear, one_hot
from auditor.debug_dp.implementation import StepSettings

# Visits are whole numbers up to rounding, the trace of noise and the drift of gradients over a run.
_SLACK = 0.1
_LOTS = 5


def columns(bench: Harness, records: int, dials: StepSettings) -> npt.NDArray[np.float64]:
    """Train on one-hot records without noise and return (records,) how far the column of each moved."""
    x, y = one_hot(records)
    moved = bench.moved(linear(records), x, y, dials.quiet()).parameters["0.weight"].norm(dim=0).numpy()
    return np.where(moved > 1e-3 * max(float(moved.max()), bench.contribution(dials)), moved, 0.0)


def one_visit(bench: Harness, records: int, dials: StepSettings) -> float:
    """Return how far one visit moves a column: the least move in runs of one step, or 0 if nothing ever moves.

    Measured rather than computed, since code that divides by another number still makes steps that can be counted.
    """
    single = replace(dials, steps=1)
    moved = np.concatenate([columns(bench, records, single) for _ in range(_LOTS)])
    return float(moved[moved > 0].min(initial=np.inf)) if moved.any() else 0.0


def visits(moved: npt.NDArray[np.float64], visit: float) -> npt.NDArray[np.float64]:
    """Return moves as numbers of visits, NaN where they are no whole number of them.

    Examples:
        >>> visits(np.array([0.0, 0.5, 1.0, 0.8]), 0.5)
        array([ 0.,  1.,  2., nan])
    """
    if visit <= 0:
        return np.full(moved.shape, np.nan)
    counts = moved / visit
    whole = np.round(counts)
    return np.where(np.abs(counts - whole) <= _SLACK, whole, np.nan)


def seen(moved: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 for each record that moved and 0 for the others, NaN where those of one lot moved by unequal amounts.

    Needs no known contribution, so it also counts lots that are divided by their own size.
    """
    alike = np.isclose(moved, moved.max(), rtol=_SLACK) | (moved == 0)
    return np.where(alike, moved > 0, np.nan)
