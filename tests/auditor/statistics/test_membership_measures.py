"""Measures against scikit-learn, naive re-implementations, and simulated scores whose truth is known."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from auditor.statistics.curves import histogram, roc_curve
from auditor.statistics.intervals import (
    auc_interval,
    auc_with_variance,
    binomial_lower,
    binomial_upper,
    bracketed_tpr,
    combined_reach,
)
from auditor.statistics.membership import (
    advantage,
    auc,
    positive_predictive_value,
    rate,
    tpr_at_fpr,
)
from auditor.statistics.units import Units
from reports.records.report import Estimate

Array = npt.NDArray[Any]
normal = stats.norm


def sample(rng: np.random.Generator, members: int, nonmembers: int, shift: float = 1.0) -> tuple[Array, Array]:
    scores = np.concatenate([rng.normal(shift, 1, members), rng.normal(0, 1, nonmembers)])
    return scores, np.arange(members + nonmembers) < members


def assert_covers(hits: int, trials: int, level: float = 0.95) -> None:
    """Fail only if so few hits are implausible (one in a thousand) at the nominal level."""
    assert stats.binomtest(hits, trials, level, alternative="less").pvalue > 1e-3, f"{hits} of {trials}"


def numbers(found: Estimate) -> tuple[float, float, float]:
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return found.value, found.low, found.high


# ---- proportions


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 10), (1, 1), (0, 1), (997, 1000), (50_000, 100_000)])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_rate_is_scipy_s_clopper_pearson(k: int, n: int, level: float) -> None:
    found = rate(k, n, level=level, unit="guess")
    expected = stats.binomtest(k, n).proportion_ci(level, method="exact")
    assert numbers(found) == pytest.approx((k / n, expected.low, expected.high), abs=1e-10)
    assert (found.n, found.unit, found.level) == (n, "guess", level)


def test_rate_of_nothing_has_a_reason() -> None:
    assert rate(0, 0, level=0.95).value is None


# ---- AUC


def naive_delong(members: Array, nonmembers: Array) -> tuple[float, float]:
    """DeLong by its definition, over all pairs."""
    wins = (members[:, None] > nonmembers[None]) + 0.5 * (members[:, None] == nonmembers[None])
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(nonmembers)
    return float(wins.mean()), float(variance)


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize(("m", "n"), [(2, 2), (15, 40), (200, 90)])
def test_auc_and_variance_match_naive_and_scikit_learn(m: int, n: int, decimals: int) -> None:
    scores, members = sample(np.random.default_rng(m), m, n)
    scores = np.round(scores, decimals)
    found = auc_with_variance(scores[members], scores[~members])
    assert found == pytest.approx(naive_delong(scores[members], scores[~members]), abs=1e-12)
    assert auc(scores, members, level=0.95).value == pytest.approx(roc_auc_score(members, scores))


def test_auc_depends_on_ranks_only_and_is_symmetric() -> None:
    scores, members = sample(np.random.default_rng(0), 80, 120)
    value, low, high = numbers(auc(scores, members, level=0.95))
    assert numbers(auc(np.exp(scores), members, level=0.95)) == pytest.approx((value, low, high))
    assert numbers(auc(-scores, members, level=0.95)) == pytest.approx((1 - value, 1 - high, 1 - low))
    infinite = np.where(scores > 2, np.inf, np.where(scores < -2, -np.inf, scores))
    assert auc(infinite, members, level=0.95).value == pytest.approx(value, abs=0.01)


def test_perfect_auc_has_clopper_pearson_s_limit() -> None:
    value, low, high = numbers(auc(np.arange(100.0), np.arange(100) >= 40, level=0.95))
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(float(binomial_lower(40, 40, error=0.025)), abs=1e-9)
    assert numbers(auc(-np.arange(100.0), np.arange(100) >= 40, level=0.95))[:2] == (0.0, 0.0)
    assert numbers(auc(np.zeros(100), np.arange(100) >= 40, level=0.95))[0] == 0.5


SHAPES: dict[str, Callable[[np.random.Generator, int, int], tuple[Array, Array]]] = {
    "null": lambda rng, m, n: (rng.normal(0, 1, m), rng.normal(0, 1, n)),
    "strong": lambda rng, m, n: (rng.normal(3, 1, m), rng.normal(0, 1, n)),
    "nearly perfect": lambda rng, m, n: (rng.normal(4.5, 1, m), rng.normal(0, 1, n)),
    "wide members": lambda rng, m, n: (rng.normal(1, 4, m), rng.normal(0, 1, n)),
    "few exposed": lambda rng, m, n: (np.where(rng.random(m) < 0.05, 9, rng.normal(0, 1, m)), rng.normal(0, 1, n)),
    "few hidden": lambda rng, m, n: (np.where(rng.random(m) < 0.98, 9, rng.normal(0, 1, m)), rng.normal(0, 1, n)),
    "ties": lambda rng, m, n: (np.round(rng.normal(1, 1, m)), np.round(rng.normal(0, 1, n))),
    "two values": lambda rng, m, n: (rng.normal(0, 1e-9, m), np.where(rng.random(n) < 0.98, -1.0, 1.0)),
}


@functools.cache
def true_auc(shape: str) -> float:
    return auc_with_variance(*SHAPES[shape](np.random.default_rng(99), 400_000, 400_000))[0]


@pytest.mark.parametrize(("m", "n"), [(10, 10), (15, 15), (20, 200), (200, 30), (300, 300)])
@pytest.mark.parametrize("shape", SHAPES)
def test_auc_interval_covers(shape: str, m: int, n: int) -> None:
    rng = np.random.default_rng(9)
    truth, hits, trials = true_auc(shape), 0, 400
    for _ in range(trials):
        area, variance = auc_with_variance(*SHAPES[shape](rng, m, n))
        low, high, _ = auc_interval(area, variance, m, n, error=0.05)
        hits += low <= truth + 1e-3 and truth - 1e-3 <= high
        assert low <= area <= high
    # DeLong's interval is an approximation: at the smallest sizes it is allowed to be one percent short.
    assert_covers(hits, trials, level=0.94)


# ---- TPR at a fixed FPR


def true_tpr(fpr: float, shift: float, tied: bool) -> float:
    """TPR at the smallest threshold whose false-positive rate is at most `fpr`, for normal or half-rounded scores."""
    if not tied:
        return float(normal.sf(normal.isf(fpr) - shift))
    grid = np.arange(-40, 40) / 2
    threshold = grid[np.argmax(normal.sf(grid + 0.25) <= fpr)]
    return float(normal.sf(threshold + 0.25 - shift))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("n", "fpr"), [(200, 0.01), (200, 0.05), (1000, 0.001), (1000, 0.01), (4000, 0.001), (4000, 0.01)]
)
def test_tpr_interval_covers_where_plain_clopper_pearson_does_not(n: int, fpr: float, tied: bool) -> None:
    rng = np.random.default_rng(10)
    truth, trials, error = true_tpr(fpr, 1.5, tied), 2000, 0.05
    hits = plain = 0
    for _ in range(trials):
        members, nonmembers = rng.normal(1.5, 1, n), rng.normal(0, 1, n)
        if tied:
            members, nonmembers = np.round(2 * members) / 2, np.round(2 * nonmembers) / 2
        value, low, high = (float(part) for part in bracketed_tpr(members, nonmembers, fpr, error=error))
        assert 0 <= low <= value <= high <= 1
        hits += low <= truth <= high
        found = round(value * n)
        plain += bool(binomial_lower(found, n, error=error / 2) <= truth <= binomial_upper(found, n, error=error / 2))
    assert hits >= 0.95 * trials
    if not tied:
        assert plain < 0.7 * trials


@pytest.mark.parametrize("decimals", [0, 2, 12])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.29, 0.999])
def test_tpr_value_is_the_best_operating_point_of_the_sample(fpr: float, decimals: int) -> None:
    scores, members = sample(np.random.default_rng(11), 150, 100)
    scores = np.round(scores, decimals)
    false, true, _ = sklearn_roc_curve(members, scores, drop_intermediate=False)
    best = true[false <= fpr + 1e-12].max()
    assert tpr_at_fpr(scores, members, fpr=fpr, level=0.95).value == pytest.approx(best)


def test_tpr_refuses_what_it_cannot_resolve() -> None:
    scores, members = sample(np.random.default_rng(12), 300, 285)
    found = tpr_at_fpr(scores, members, fpr=0.001, level=0.95)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason == (
        "unresolvable: 285 non-members cannot resolve a false-positive rate of 0.1% (at least 1,000 needed)"
    )
    enough = tpr_at_fpr(*sample(np.random.default_rng(12), 300, 1000), fpr=0.001, level=0.95)
    assert enough.value is not None
    assert enough.low == 0
    assert "4,675 are needed" in str(enough.reason)
    assert tpr_at_fpr(*sample(np.random.default_rng(12), 300, 4674, 6), fpr=0.001, level=0.95).low == 0
    plenty = tpr_at_fpr(*sample(np.random.default_rng(12), 300, 4675, 6), fpr=0.001, level=0.95)
    assert plenty.reason is None
    assert numbers(plenty)[1] > 0.5


def test_tpr_of_infinite_and_equal_scores() -> None:
    members = np.arange(400) < 200
    infinite = np.where(members, np.inf, -np.inf)
    assert numbers(tpr_at_fpr(infinite, members, fpr=0.05, level=0.95))[::2] == (1.0, 1.0)
    assert numbers(tpr_at_fpr(np.zeros(400), members, fpr=0.05, level=0.95))[:2] == (0.0, 0.0)
    assert numbers(tpr_at_fpr(-infinite, members, fpr=0.05, level=0.95))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("error", [0.5, 0.05, 0.001])
def test_combined_reach_is_exact_for_two_independent_p_values(error: float) -> None:
    deviates = np.maximum(normal.ppf(np.random.default_rng(0).random((2, 400_000))), 0)
    beyond = (np.hypot(*deviates) >= combined_reach(error)).mean()
    assert beyond == pytest.approx(error, abs=5 * math.sqrt(error / 400_000))


# ---- advantage, predictive value


def test_advantage_is_the_largest_gap_and_covers() -> None:
    rng = np.random.default_rng(13)
    truth, hits = float(normal.cdf(0.5) - normal.cdf(-0.5)), 0
    for _ in range(300):
        scores, members = sample(rng, 150, 250)
        value, low, high = numbers(advantage(scores, members, level=0.95))
        false, true, _ = sklearn_roc_curve(members, scores)
        assert value == pytest.approx((true - false).max())
        hits += low <= truth <= high
    assert_covers(hits, 300)
    assert "Dvoretzky" in advantage(scores, members, level=0.95).method
    assert numbers(advantage(np.zeros(10), np.arange(10) < 5, level=0.95))[:2] == (0.0, 0.0)


def test_predictive_value_follows_bayes_rule() -> None:
    found = Estimate(value=0.1, low=0.05, high=0.2, level=0.95, method="given", n=100)
    for prior in (0.1, 0.01, 0.001):
        value, low, high = numbers(positive_predictive_value(found, fpr=0.01, prior=prior))
        assert value == pytest.approx(0.1 * prior / (0.1 * prior + 0.01 * (1 - prior)))
        assert low < value < high
    guessing = Estimate(value=0.01, low=0.01, high=0.01, method="given")
    assert positive_predictive_value(guessing, fpr=0.01, prior=0.1).value == pytest.approx(0.1)
    missing = Estimate(method="given", reason="unresolvable")
    assert positive_predictive_value(missing, fpr=0.001, prior=0.1).reason == "unresolvable"


# ---- curves, histograms, units


def test_roc_curve_is_ordered_and_its_band_covers_at_all_points_at_once() -> None:
    rng = np.random.default_rng(14)
    hits = 0
    for _ in range(200):
        scores, members = sample(rng, 300, 400, 1.5)
        curve = roc_curve(scores, members, level=0.95, points=60)
        truth = normal.sf(normal.isf(np.array(curve.fpr)) - 1.5)
        hits += bool(((np.array(curve.tpr_low) <= truth) & (truth <= np.array(curve.tpr_high))).all())
    assert_covers(hits, 200)
    assert len({len(curve.fpr), len(curve.tpr), len(curve.tpr_low), len(curve.tpr_high)}) == 1
    assert len(curve.fpr) <= 61
    assert curve.fpr[0] == pytest.approx(1 / 400)
    assert (curve.fpr[-1], curve.tpr[-1]) == (1.0, 1.0)
    assert (np.diff(curve.fpr) > 0).all()
    for series in (curve.tpr, curve.tpr_low, curve.tpr_high):
        assert (np.diff(series) >= -1e-12).all()
    assert "simultaneous" in curve.method
    assert len(roc_curve(scores, members, level=0.95, points=200).fpr) <= 200


def test_roc_curve_of_a_single_nonmember() -> None:
    assert roc_curve([1.0, 0.0], [True, False], level=0.95).fpr == [1.0]


def test_histogram_keeps_every_record_and_resists_outliers() -> None:
    scores, members = sample(np.random.default_rng(15), 500, 700)
    scores[0], scores[1], scores[2] = 1e12, -np.inf, np.inf
    found = histogram(scores, members, bins=30)
    assert 11 <= len(found.edges) <= 31
    assert len(found.edges) == len(found.members) + 1 == len(found.nonmembers) + 1
    assert (sum(found.members), sum(found.nonmembers)) == (500, 700)
    assert found.edges[-1] < 10
    assert sum(histogram([5.0, 5.0], [True, False], bins=3).members) == 1


def test_units_score_as_their_highest_record() -> None:
    units = Units.of([7, 7, 2, 2, 9])
    scores, members = units.highest(np.array([0.1, 0.9, 0.5, 0.4, 0.3])), units.any(np.array([0, 1, 0, 0, 1]) > 0)
    assert scores.tolist() == [0.5, 0.9, 0.3]
    assert members.tolist() == [False, True, True]
    found = auc(scores, members, level=0.95, unit="owner")
    assert (found.n, found.unit) == (3, "owner")


# ---- names and refusals


@pytest.mark.parametrize("members", [[True] * 4, [False] * 4])
def test_one_sided_sets_give_a_reason(members: list[bool]) -> None:
    scores = [0.1, 0.2, 0.3, 0.4]
    for found in (
        auc(scores, members, level=0.95),
        tpr_at_fpr(scores, members, fpr=0.5, level=0.95),
        advantage(scores, members, level=0.95),
    ):
        assert found.value is None
        assert "members among 4 scores" in str(found.reason)
    with pytest.raises(ValueError, match="no ROC curve"):
        roc_curve(scores, members, level=0.95)


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("NaN", lambda: auc([0.1, math.nan], [True, False], level=0.95)),
    ("shape", lambda: auc([0.1, 0.2, 0.3], [True, False], level=0.95)),
    ("other than 0 and 1", lambda: auc([0.1, 0.2], [1, 2], level=0.95)),
    ("level is 95", lambda: auc([0.1, 0.2], [1, 0], level=95)),
    ("fpr is 0", lambda: tpr_at_fpr([0.1, 0.2], [1, 0], fpr=0, level=0.95)),
    ("prior is 1", lambda: positive_predictive_value(rate(1, 2, level=0.95), fpr=0.1, prior=1)),
    ("successes is 3", lambda: rate(3, 2, level=0.95)),
    ("bins is 0", lambda: histogram([0.1, 0.2], [1, 0], bins=0)),
    ("none of 2", lambda: histogram([np.inf, np.inf], [1, 0])),
    ("points is 2", lambda: roc_curve([0.1, 0.2], [1, 0], level=0.95, points=2)),
]


@pytest.mark.parametrize(("message", "call"), REFUSED)
def test_errors_name_the_value(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
