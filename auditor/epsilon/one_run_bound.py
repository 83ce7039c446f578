"""Lower bounds on epsilon from what an attack got right: pure functions of counts, or of scores and coins.

A bound refutes a claim that is below it; it never certifies one. Each function names what must hold for it to be true,
refuses a design that it was not made for, and gives its ceiling: the largest bound that so many trials could show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from auditor.epsilon.bound import (
    COINS_ARE_FAIR,
    GUESSES_ARE_BLIND,
    RUNS_ARE_INDEPENDENT,
    THRESHOLD_WAS_FIXED,
    BoundKind,
    EpsilonBound,
    check_delta,
    check_error_counts,
    check_guesses,
    corrected_confidence,
    refuse_design,
)
from auditor.epsilon.error_counts import CountMethod
from auditor.statistics.intervals import check_open_unit, check_scores, one_run_limit, two_rate_limit
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

_TIES_SEED = 20230513  # public and fixed: ties are broken by an order that nobody chose after seeing the coins
_IMPLAUSIBLE = 1e-9  # coins more lopsided than this were not fair coins


class BoundOfGuesses(Protocol):
    """Turns right guesses about the canaries of one run into a bound, as `one_run` does."""

    def __call__(
        self, canaries: int, guesses: int, correct: int, /, *, delta: float, confidence: float
    ) -> EpsilonBound:
        """Return the bound at this delta and confidence."""


@dataclass(frozen=True)
class OneRunAudit:
    """The best one-run bound over a fixed grid of numbers of guesses.

    Attributes:
        bound: Holds at its confidence for the maximum over the grid.
        guesses: Number of guesses that gave it.
        correct: How many of those were right.
        tried: The grid that was paid for.
    """

    bound: EpsilonBound
    guesses: int
    correct: int
    tried: tuple[int, ...]


def clopper_pearson(
    false_positives: int,
    negatives: int,
    false_negatives: int,
    positives: int,
    *,
    delta: float,
    confidence: float,
    neighboring: Neighboring = Neighboring.ADD_REMOVE,
    unit: Unit = Unit.RECORD,
) -> EpsilonBound:
    """Bound epsilon from the errors of a membership test over independent trials.

    An (epsilon, delta)-private mechanism obeys TPR <= e^epsilon FPR + delta and TNR <= e^epsilon FNR + delta. Upper
    Clopper-Pearson limits on FPR and FNR, each with half the error, hold together and give both directions at once.

    Args:
        false_positives: Trials without the record that were called "in", 0 .. negatives.
        negatives: Independent trials without the record, at least 1.
        false_negatives: Trials with the record that were called "out", 0 .. positives.
        positives: Independent trials with the record, at least 1.
        delta: In [0, 1).
        confidence: In (0, 1).
        neighboring: Which two data sets the trials were run on.
        unit: What they differ in.

    Returns:
        The larger of both directions, never below 0.

    Raises:
        ValueError: If a count or a probability is out of range.

    Examples:
        >>> round(clopper_pearson(0, 1000, 0, 1000, delta=1e-5, confidence=0.95).lower, 2)
        5.6

    Source: Kairouz, Oh and Viswanath (2015), theorem 2.1; limits as in Nasr et al. (2021), with the error split.
    """
    check_error_counts(false_positives, negatives, false_negatives, positives)
    check_delta(delta)
    error = 1 - check_open_unit(confidence, name="confidence")
    lower = two_rate_limit(
        np.array([false_positives]), negatives, np.array([false_negatives]), positives, delta=delta, error=error
    )
    ceiling = two_rate_limit(np.zeros(1), negatives, np.zeros(1), positives, delta=delta, error=error)
    return EpsilonBound(
        lower=float(lower[0]),
        delta=delta,
        neighboring=neighboring,
        unit=unit,
        confidence=confidence,
        method="Clopper-Pearson on both error rates",
        kind=BoundKind.CONFIDENCE,
        assumptions=(
            RUNS_ARE_INDEPENDENT,
            THRESHOLD_WAS_FIXED,
        ),
        ceiling=float(ceiling[0]),
    )


CLOPPER_PEARSON = CountMethod("Clopper-Pearson", bound=clopper_pearson, rank=two_rate_limit)


def one_run(canaries: int, guesses: int, correct: int, *, delta: float, confidence: float) -> EpsilonBound:
    """Bound epsilon from guesses about many canaries of one training run.

    If training is (epsilon, delta)-private, the number of correct guesses is dominated by W ~ Binomial(guesses,
    e^epsilon / (1 + e^epsilon)) up to a term in delta. The bound is the largest epsilon below which every value is
    rejected: P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i <= 1 - confidence.

    Args:
        canaries: m, records that were each included by an independent fair coin, at least 1.
        guesses: Number of coins guessed, 0 .. canaries.
        correct: v, number guessed right, 0 .. guesses.
        delta: In [0, 1).
        confidence: In (0, 1).

    Returns:
        The bound, exact from below to 1e-6; ValueError if a count or a probability is out of range.

    Examples:
        >>> round(one_run(1000, 1000, 1000, delta=0.0, confidence=0.95).lower, 2)
        5.81

    Source: Steinke, Nasr and Jagielski (2023), theorem 5.2 and appendix D. The p-value itself is
    `auditor.statistics.intervals.one_run_p_value`.
    """
    check_guesses(canaries, guesses, correct)
    check_delta(delta)
    error = 1 - check_open_unit(confidence, name="confidence")
    lower = one_run_limit(canaries, guesses, correct, delta=delta, error=error)
    ceiling = lower if correct == guesses else one_run_limit(canaries, guesses, guesses, delta=delta, error=error)
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=Neighboring.ADD_REMOVE,
        unit=Unit.RECORD,
        confidence=confidence,
        method="one-run bound (Steinke, Nasr, Jagielski 2023)",
        kind=BoundKind.CONFIDENCE,
        assumptions=(
            COINS_ARE_FAIR,
            GUESSES_ARE_BLIND,
        ),
        ceiling=max(lower, ceiling),
    )


def one_run_from_scores(
    scores: npt.ArrayLike,
    included: npt.ArrayLike,
    *,
    inclusion: Inclusion,
    delta: float,
    confidence: float,
    guesses: Sequence[int] | None = None,
    probability: float = 0.5,
    comparisons: int = 1,
    method: BoundOfGuesses = one_run,
    rng: np.random.Generator | None = None,
) -> OneRunAudit:
    """Bound epsilon from one score per canary of one training run.

    For each r of a grid fixed in advance, the r / 2 highest scores are guessed in and the r / 2 lowest out; the best
    bound is kept, and the error is divided by the size of the grid. Ties are broken by a random order (from `rng`, else
    a fixed public seed), never by position: canaries may be stored members first.

    Args:
        scores: (m,) higher means included.
        included: (m,) bool, the coins.
        inclusion: Must be INDEPENDENT.
        delta: In [0, 1).
        confidence: In (0, 1); holds for the maximum over the grid and over `comparisons` audits.
        guesses: Even numbers in 2 .. m, chosen without the coins; m / 64, m / 32 ... m by default.
        probability: Chance with which each canary was included; must be one half.
        comparisons: Number of attacks or methods of which the best is reported, at least 1 (Bonferroni).
        method: `one_run`, or `auditor.epsilon.one_run_fdp_bound.one_run_fdp` where a Gaussian trade-off may be assumed.
        rng: Breaks ties.

    Raises:
        ValueError: If the design is not independent fair coins, or an argument is out of range.

    Source: Steinke, Nasr and Jagielski (2023), algorithm 1; the correction over the grid is ours.
    """
    refuse_design(
        inclusion, needed=Inclusion.INDEPENDENT, method="the one-run bound", remedy="draw a fair coin per canary"
    )
    if probability != 0.5:
        raise ValueError(f"inclusion probability is {probability}; the one-run bound holds for fair coins, 0.5, only")
    values, coins = check_scores(scores, included)
    m = len(values)
    if m < 2:
        raise ValueError(f"{m} canaries; at least 2 are needed to guess one in and one out")
    heads = int(coins.sum())
    if 2 * stats.binom.cdf(min(heads, m - heads), m, 0.5) < _IMPLAUSIBLE:
        raise ValueError(f"{heads} of {m} canaries are included, which fair coins do not do; give the coins as drawn")
    tried = _grid(m) if guesses is None else tuple(sorted(set(guesses)))
    if not tried or any(r % 2 or not 2 <= r <= m for r in tried):
        raise ValueError(f"numbers of guesses are {list(tried)}; give even numbers in 2..{m}")
    per_bound = corrected_confidence(confidence, comparisons * len(tried))
    ties = (np.random.default_rng(_TIES_SEED) if rng is None else rng).permutation(m)
    right = coins[np.lexsort((ties, values))]
    outs_below = np.concatenate([[0], np.cumsum(~right)])  # outs among the k lowest
    ins_above = np.concatenate([[0], np.cumsum(right[::-1])])  # ins among the k highest
    # Largest r first: where bounds are equal, the most guesses speak.
    found = [(r, int(outs_below[r // 2] + ins_above[r // 2])) for r in reversed(tried)]
    bounds = [method(m, r, v, delta=delta, confidence=per_bound) for r, v in found]
    best = max(range(len(bounds)), key=lambda i: bounds[i].lower)
    bound = replace(bounds[best], confidence=confidence, ceiling=max(b.ceiling for b in bounds))
    return OneRunAudit(bound, guesses=found[best][0], correct=found[best][1], tried=tried)


def _grid(canaries: int) -> tuple[int, ...]:
    return tuple(sorted({max(2, canaries // 2**k // 2 * 2) for k in range(7)}))
