"""Scores of independent runs -> a bound on epsilon, by any method that works on error counts."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from auditor.epsilon.bound import EpsilonBound, corrected_confidence, refuse_design
from auditor.statistics.intervals import Float64Array, check_scores
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion


class BoundOfCounts(Protocol):
    """Turns the errors of a membership test over independent trials into a bound, as `clopper_pearson` does."""

    def __call__(
        self,
        false_positives: int,
        negatives: int,
        false_negatives: int,
        positives: int,
        /,
        *,
        delta: float,
        confidence: float,
        neighboring: Neighboring,
        unit: Unit,
    ) -> EpsilonBound:
        """Return the bound at this delta and confidence."""


class RankOfCounts(Protocol):
    """Says how good each of many pairs of error counts is, cheaply, as `intervals.two_rate_limit` does."""

    def __call__(
        self,
        false_positives: npt.NDArray[Any],
        negatives: int,
        false_negatives: npt.NDArray[Any],
        positives: int,
        /,
        *,
        delta: float,
        error: float,
    ) -> Float64Array:
        """Return a number for each pair, larger where the bound would be larger."""


@dataclass(frozen=True)
class CountMethod:
    """A way from error counts to epsilon.

    Attributes:
        name: As it stands in messages.
        bound: The bound itself.
        rank: What a threshold is chosen by, on runs that the bound does not use.
    """

    name: str
    bound: BoundOfCounts
    rank: RankOfCounts


def bound_from_runs(
    scores: npt.ArrayLike,
    included: npt.ArrayLike,
    *,
    method: CountMethod,
    inclusion: Inclusion,
    delta: float,
    confidence: float,
    threshold: float | None = None,
    rng: np.random.Generator | None = None,
    comparisons: int = 1,
    neighboring: Neighboring = Neighboring.ADD_REMOVE,
    unit: Unit = Unit.RECORD,
) -> EpsilonBound:
    """Bound epsilon from one score per independent run.

    A run is called "in" if its score is at least the threshold. Without a threshold, one half of the runs (drawn by
    `rng` within each side) chooses it and the other half gives the figure.

    Args:
        scores: (runs,) higher means that the record was in.
        included: (runs,) bool, whether it was.
        method: `auditor.epsilon.one_run_bound.CLOPPER_PEARSON`, `auditor.epsilon.gaussian_bound.GAUSSIAN` or
            `auditor.epsilon.credible_bound.CREDIBLE`.
        inclusion: Must be PAIRED_RUNS.
        delta: In [0, 1); for GAUSSIAN above 0.
        confidence: In (0, 1); holds for the maximum over `comparisons` such bounds.
        threshold: Fixed in advance; or give `rng`.
        rng: Draws the half that chooses the threshold.
        comparisons: Number of attacks, methods or statistics of which the best is reported, at least 1 (Bonferroni).
        neighboring: Which two data sets the runs were made on.
        unit: What they differ in.

    Returns:
        The bound. Its ceiling is that of the runs which give the figure.

    Raises:
        ValueError: If the design is not PAIRED_RUNS, a side has too few runs, or an argument is out of range.

    Examples:
        >>> from auditor.epsilon.one_run_bound import CLOPPER_PEARSON
        >>> shown = bound_from_runs(
        ...     [0.1, 0.2, 1.1, 1.2] * 500,
        ...     [False, False, True, True] * 500,
        ...     method=CLOPPER_PEARSON,
        ...     inclusion=Inclusion.PAIRED_RUNS,
        ...     delta=1e-5,
        ...     confidence=0.95,
        ...     threshold=0.5,
        ... )
        >>> round(shown.lower, 2)
        5.6

    Source: Nasr et al. (2021) for thresholds on the scores of many runs; the split is ours.
    """
    refuse_design(inclusion, needed=Inclusion.PAIRED_RUNS, method=method.name, remedy="use the one-run bound")
    values, bits = check_scores(scores, included)
    per_bound = corrected_confidence(confidence, comparisons)
    ins, outs = values[bits], values[~bits]
    if threshold is None:
        if rng is None:
            raise ValueError("neither threshold nor rng is given; fix the threshold in advance or give rng to split")
        if min(len(ins), len(outs)) < 2:
            raise ValueError(f"{len(ins)} runs with and {len(outs)} without the record; a split needs 2 on each side")
        ins, outs = rng.permutation(ins), rng.permutation(outs)
        threshold = _best_threshold(ins[: len(ins) // 2], outs[: len(outs) // 2], method, delta, 1 - per_bound)
        ins, outs = ins[len(ins) // 2 :], outs[len(outs) // 2 :]
    elif np.isnan(threshold):
        raise ValueError("threshold is nan; give a number fixed in advance, or rng to choose one on a split")
    bound = method.bound(
        int((outs >= threshold).sum()),
        len(outs),
        int((ins < threshold).sum()),
        len(ins),
        delta=delta,
        confidence=per_bound,
        neighboring=neighboring,
        unit=unit,
    )
    return replace(bound, confidence=confidence)  # what the correction leaves


def _best_threshold(ins: Float64Array, outs: Float64Array, method: CountMethod, delta: float, error: float) -> float:
    """Return the score that as a threshold ranks highest on these runs."""
    candidates = np.unique(np.concatenate([ins, outs]))
    false_positives = len(outs) - np.searchsorted(np.sort(outs), candidates, side="left")
    false_negatives = np.searchsorted(np.sort(ins), candidates, side="left")
    rank = method.rank(false_positives, len(outs), false_negatives, len(ins), delta=delta, error=error)
    # All ranks may be 0 with few runs: then separate the sides as well as possible.
    gap = -(false_positives / len(outs) + false_negatives / len(ins))
    return float(candidates[np.lexsort((gap, rank))[-1]])
