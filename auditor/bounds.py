"""Lower bounds on epsilon from what an attack got right: pure functions of counts, or of scores and coins.

A bound refutes a claim that is below it; it never certifies one. Each function names what must hold for it to be true,
refuses a design that it was not made for, and gives its ceiling: the largest bound that so many trials could show.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from auditor.intervals import Float64Array, check_open_unit, check_scores, one_run_limit, two_rate_limit
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

_TIES_SEED = 20230513  # public and fixed: ties are broken by an order that nobody chose after seeing the coins
_IMPLAUSIBLE = 1e-9  # coins more lopsided than this were not fair coins


class BoundKind(enum.Enum):
    """What kind of statement a bound is."""

    CONFIDENCE = "confidence"
    CREDIBLE = "credible"
    IMPLIED = "implied"


@dataclass(frozen=True)
class EpsilonBound:
    """A lower bound on epsilon with everything it rests on.

    Attributes:
        lower: In nats, at least 0.
        delta: The delta in [0, 1) at which it holds.
        neighboring: Which neighbours the trials distinguished.
        unit: Whose presence the trials distinguished.
        confidence: Probability in (0, 1) that the bound is not above the truth (for CREDIBLE: posterior probability).
        method: Who derived it.
        kind: CONFIDENCE, CREDIBLE, or IMPLIED (takes sampling rate, steps and sampler on trust).
        assumptions: What must hold for it to be true, one sentence each.
        ceiling: The largest bound that this many trials could ever give.

    Raises:
        ValueError: If `lower` is negative, NaN, or above `ceiling`.
    """

    lower: float
    delta: float
    neighboring: Neighboring
    unit: Unit
    confidence: float
    method: str
    kind: BoundKind
    assumptions: tuple[str, ...]
    ceiling: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.ceiling:
            raise ValueError(f"lower bound is {self.lower}; it must lie between 0 and its ceiling {self.ceiling}")
        _check_delta(self.delta)
        check_open_unit(self.confidence, name="confidence")


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

    Example:
        >>> round(clopper_pearson(0, 1000, 0, 1000, delta=1e-5, confidence=0.95).lower, 2)
        5.6

    Source: Kairouz, Oh and Viswanath (2015), theorem 2.1; limits as in Nasr et al. (2021), with the error split.
    """
    _check_errors(false_positives, negatives, "false_positives", "negatives")
    _check_errors(false_negatives, positives, "false_negatives", "positives")
    _check_delta(delta)
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
            "The trials are independent runs.",
            "The decision threshold was fixed before these trials were looked at.",
        ),
        ceiling=float(ceiling[0]),
    )


def clopper_pearson_from_runs(
    scores: npt.ArrayLike,
    included: npt.ArrayLike,
    *,
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
        inclusion: Must be PAIRED_RUNS.
        delta: In [0, 1).
        confidence: In (0, 1); holds for the maximum over `comparisons` such bounds.
        threshold: Fixed in advance; or give `rng`.
        rng: Draws the half that chooses the threshold.
        comparisons: Number of attacks or statistics of which the best is reported, at least 1 (Bonferroni).
        neighboring: Which two data sets the runs were made on.
        unit: What they differ in.

    Raises:
        ValueError: If the design is not PAIRED_RUNS, a side has too few runs, or an argument is out of range.

    Source: Nasr et al. (2021) for the bound; the split is ours.
    """
    refuse_design(inclusion, needed=Inclusion.PAIRED_RUNS, method="Clopper-Pearson", remedy="use the one-run bound")
    values, bits = check_scores(scores, included)
    per_bound = _corrected(confidence, comparisons)
    ins, outs = values[bits], values[~bits]
    if threshold is None:
        if rng is None:
            raise ValueError("neither threshold nor rng is given; fix the threshold in advance or give rng to split")
        if min(len(ins), len(outs)) < 2:
            raise ValueError(f"{len(ins)} runs with and {len(outs)} without the record; a split needs 2 on each side")
        ins, outs = rng.permutation(ins), rng.permutation(outs)
        threshold = _best_threshold(ins[: len(ins) // 2], outs[: len(outs) // 2], delta, 1 - per_bound)
        ins, outs = ins[len(ins) // 2 :], outs[len(outs) // 2 :]
    false_positives, false_negatives = int((outs >= threshold).sum()), int((ins < threshold).sum())
    bound = clopper_pearson(false_positives, len(outs), false_negatives, len(ins), delta=delta, confidence=per_bound)
    return replace(bound, confidence=confidence, neighboring=neighboring, unit=unit)  # what the correction leaves


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

    Example:
        >>> round(one_run(1000, 1000, 1000, delta=0.0, confidence=0.95).lower, 2)
        5.81

    Source: Steinke, Nasr and Jagielski (2023), theorem 5.2 and appendix D. The p-value itself is
    `auditor.intervals.one_run_p_value`.
    """
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise ValueError(
            f"canaries is {canaries}, guesses {guesses}, correct {correct}; "
            "they must satisfy 0 <= correct <= guesses <= canaries and canaries >= 1"
        )
    _check_delta(delta)
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
            "Each canary was included by its own fair coin, independently of everything else.",
            "Which canaries to guess was decided without looking at the coins.",
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
        comparisons: Number of attacks of which the best is reported, at least 1 (Bonferroni).
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
    per_bound = _corrected(confidence, comparisons * len(tried))
    ties = (np.random.default_rng(_TIES_SEED) if rng is None else rng).permutation(m)
    right = coins[np.lexsort((ties, values))]
    outs_below = np.concatenate([[0], np.cumsum(~right)])  # outs among the k lowest
    ins_above = np.concatenate([[0], np.cumsum(right[::-1])])  # ins among the k highest
    # Largest r first: where bounds are equal, the most guesses speak.
    found = [(r, int(outs_below[r // 2] + ins_above[r // 2])) for r in reversed(tried)]
    bounds = [one_run(m, r, v, delta=delta, confidence=per_bound) for r, v in found]
    best = max(range(len(bounds)), key=lambda i: bounds[i].lower)
    bound = replace(bounds[best], confidence=confidence, ceiling=max(b.ceiling for b in bounds))
    return OneRunAudit(bound, guesses=found[best][0], correct=found[best][1], tried=tried)


def refuse_design(found: Inclusion, *, needed: Inclusion, method: str, remedy: str) -> None:
    """Raise ValueError unless the candidates were included by the design that `method` was made for."""
    if found is not needed:
        raise ValueError(
            f"inclusion is {found.name} ({found.value}); {method} needs {needed.name} ({needed.value}): {remedy}"
        )


def _check_errors(errors: int, trials: int, name: str, total: str) -> None:
    if trials < 1:
        raise ValueError(f"{total} is {trials}; at least 1 trial is needed on each side")
    if not 0 <= errors <= trials:
        raise ValueError(f"{name} is {errors}; it must lie in 0..{total} = {trials}")


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in [0, 1), for example 1e-5")


def _corrected(confidence: float, comparisons: int) -> float:
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}; it must be at least 1: the number of bounds the best is of")
    return 1 - (1 - check_open_unit(confidence, name="confidence")) / comparisons


def _grid(canaries: int) -> tuple[int, ...]:
    return tuple(sorted({max(2, canaries // 2**k // 2 * 2) for k in range(7)}))


def _best_threshold(ins: Float64Array, outs: Float64Array, delta: float, error: float) -> float:
    """Return the score that as a threshold gives the largest bound on these runs."""
    candidates = np.unique(np.concatenate([ins, outs]))
    false_positives = len(outs) - np.searchsorted(np.sort(outs), candidates, side="left")
    false_negatives = np.searchsorted(np.sort(ins), candidates, side="left")
    lower = two_rate_limit(false_positives, len(outs), false_negatives, len(ins), delta=delta, error=error)
    # All bounds may be 0 with few runs: then separate the sides as well as possible.
    gap = -(false_positives / len(outs) + false_negatives / len(ins))
    return float(candidates[np.lexsort((gap, lower))[-1]])
