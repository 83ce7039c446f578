"""Bounds against closed forms, brute force and simulated mechanisms whose epsilon is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from bound_simulations import AUDITS, DELTA, assert_nominal, noisy_scores
from scipy import stats

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.one_run_bound import clopper_pearson, one_run, one_run_from_scores
from auditor.statistics.intervals import one_run_p_value
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

INDEPENDENT, PAIRED, FIXED = Inclusion.INDEPENDENT, Inclusion.PAIRED_RUNS, Inclusion.FIXED


def brute_p_value(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    """The p-value by its definition, summed term by term in exact binomial coefficients."""
    q = 1 / (1 + math.exp(-epsilon))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    worst = max(math.fsum(mass[v - i : v]) / i for i in range(1, v + 1))
    return min(1.0, math.fsum(mass[v:]) + 2 * m * delta * worst)


# ---- the one-run bound


@pytest.mark.parametrize("m", [1, 5, 17, 60])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3, 0.05])
def test_one_run_p_value_is_that_of_the_definition(m: int, delta: float) -> None:
    rng = np.random.default_rng(m)
    for _ in range(25):
        r = int(rng.integers(1, m + 1))
        v = int(rng.integers(1, r + 1))
        epsilon = rng.uniform(0, 6, 3)
        expected = [brute_p_value(m, r, v, delta, e) for e in epsilon]
        np.testing.assert_allclose(one_run_p_value(m, r, v, delta=delta, epsilon=epsilon), expected, atol=1e-12)


@pytest.mark.parametrize(("m", "r", "v"), [(40, 40, 40), (60, 40, 33), (60, 60, 41), (200, 50, 50), (300, 20, 20)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-4])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_one_run_is_the_first_crossing_of_the_p_value(m: int, r: int, v: int, delta: float, confidence: float) -> None:
    lower = one_run(m, r, v, delta=delta, confidence=confidence).lower
    grid = np.linspace(0, 8, 4001)
    rejected = np.array([brute_p_value(m, r, v, delta, e) <= 1 - confidence for e in grid])
    first = len(grid) if rejected.all() else int(np.argmin(rejected))
    assert lower == pytest.approx(max(grid[max(first - 1, 0)], 0), abs=0.0021)
    if lower > 0:
        assert brute_p_value(m, r, v, delta, lower - 1e-6) <= 1 - confidence
        assert brute_p_value(m, r, v, delta, lower + 1e-6) > 1 - confidence


def test_one_run_known_values() -> None:
    perfect = one_run(1000, 1000, 1000, delta=1e-5, confidence=0.95)
    assert 5.7 < perfect.lower < 5.82  # the published ceiling of 1,000 canaries
    assert perfect.ceiling == perfect.lower
    pure = one_run(100, 100, 100, delta=0.0, confidence=0.95)
    accuracy = 0.05 ** (1 / 100)
    assert pure.lower == pytest.approx(math.log(accuracy / (1 - accuracy)), abs=1e-9)
    assert one_run(100, 0, 0, delta=0.0, confidence=0.95).lower == 0.0
    assert one_run(100, 100, 0, delta=0.0, confidence=0.95).lower == 0.0
    assert one_run(100, 100, 50, delta=0.0, confidence=0.95).lower == 0.0  # clamps


def test_one_run_names_what_it_rests_on() -> None:
    bound = one_run(100, 50, 45, delta=1e-5, confidence=0.9)
    assert (bound.neighboring, bound.unit, bound.kind) == (Neighboring.ADD_REMOVE, Unit.RECORD, BoundKind.CONFIDENCE)
    assert (bound.delta, bound.confidence) == (1e-5, 0.9)
    assert any("coin" in assumption for assumption in bound.assumptions)
    assert bound.lower < bound.ceiling == one_run(100, 50, 50, delta=1e-5, confidence=0.9).lower


def test_one_run_is_monotone() -> None:
    def lower(**change: float) -> float:
        given = {"canaries": 500, "guesses": 200, "correct": 170, "delta": 1e-5, "confidence": 0.95} | change
        return one_run(
            int(given["canaries"]),
            int(given["guesses"]),
            int(given["correct"]),
            delta=given["delta"],
            confidence=given["confidence"],
        ).lower

    assert lower(correct=150) < lower(correct=170) < lower(correct=190) < lower(correct=200)
    assert lower(delta=0) > lower(delta=1e-5) > lower(delta=1e-3)
    assert lower(confidence=0.9) > lower(confidence=0.99)
    assert lower(canaries=200) > lower(canaries=5000)


def test_one_run_is_stable_at_a_million() -> None:
    bounds = [one_run(10**6, 10**6, v, delta=1e-9, confidence=0.95) for v in (505_000, 731_059, 999_999)]
    assert bounds[1].lower == pytest.approx(1.0, abs=0.01)  # accuracy e / (1 + e)
    assert all(0 < bound.lower <= bound.ceiling for bound in bounds)


@pytest.mark.parametrize("guesses", [200, 40])
def test_one_run_over_random_coins_rarely_shows_anything(guesses: int) -> None:
    rng = np.random.default_rng(1)
    correct = rng.binomial(guesses, 0.5, AUDITS)
    assert_nominal(sum(one_run(200, guesses, int(v), delta=1e-5, confidence=0.95).lower > 0 for v in correct))


def test_one_run_of_randomised_response_stays_below_its_epsilon_and_comes_close() -> None:
    rng = np.random.default_rng(2)
    correct = rng.binomial(2000, math.e / (1 + math.e), AUDITS)
    lower = np.array([one_run(2000, 2000, int(v), delta=0.0, confidence=0.95).lower for v in correct])
    assert_nominal(int((lower > 1).sum()))
    assert np.median(lower) > 0.9


def test_one_run_survives_a_mechanism_that_spends_its_delta() -> None:
    rng = np.random.default_rng(3)
    m, delta = 200, 0.02  # with probability delta everything is published
    correct = np.where(rng.random(AUDITS) < delta, m, rng.binomial(m, math.e / (1 + math.e), AUDITS))
    assert_nominal(sum(one_run(m, m, int(v), delta=delta, confidence=0.95).lower > 1 for v in correct))
    naive = sum(one_run(m, m, int(v), delta=0.0, confidence=0.95).lower > 1 for v in correct)
    assert naive >= (correct == m).sum() > 0  # without the delta term every such run would be called a violation


def test_scores_of_null_audits_rarely_show_anything() -> None:
    rng = np.random.default_rng(4)
    shown = 0
    for _ in range(AUDITS):
        scores, coins = np.round(rng.normal(size=128), 1), rng.random(128) < 0.5
        audit = one_run_from_scores(scores, coins, inclusion=INDEPENDENT, delta=1e-5, confidence=0.95)
        shown += audit.bound.lower > 0
    assert_nominal(shown)


@pytest.mark.parametrize("mechanism", ["response", "gaussian"])
def test_scores_of_mechanisms_at_epsilon_one_stay_below(mechanism: str) -> None:
    rng = np.random.default_rng(5)
    delta = 0.0 if mechanism == "response" else DELTA
    above = 0
    for _ in range(AUDITS):
        coins = rng.random(400) < 0.5
        scores = noisy_scores(mechanism, coins, rng)
        audit = one_run_from_scores(scores, coins, inclusion=INDEPENDENT, delta=delta, confidence=0.95)
        above += audit.bound.lower > 1
    assert_nominal(above)


def test_scores_choose_among_a_fixed_grid_and_pay_for_it() -> None:
    rng = np.random.default_rng(6)
    coins = rng.random(1024) < 0.5
    scores = rng.normal(size=1024) + 3 * coins
    audit = one_run_from_scores(scores, coins, inclusion=INDEPENDENT, delta=1e-5, confidence=0.95)
    assert audit.tried == (16, 32, 64, 128, 256, 512, 1024)
    direct = one_run(1024, audit.guesses, audit.correct, delta=1e-5, confidence=1 - 0.05 / 7)
    assert audit.bound.lower == pytest.approx(direct.lower)
    assert audit.bound.confidence == 0.95
    order = np.argsort(scores)
    half = audit.guesses // 2
    assert audit.correct == (~coins[order[:half]]).sum() + coins[order[-half:]].sum()
    alone = one_run_from_scores(
        scores, coins, inclusion=INDEPENDENT, delta=1e-5, confidence=0.95, guesses=[audit.guesses]
    )
    several = one_run_from_scores(scores, coins, inclusion=INDEPENDENT, delta=1e-5, confidence=0.95, comparisons=4)
    assert alone.bound.lower > audit.bound.lower > several.bound.lower
    assert several.bound.lower <= several.bound.ceiling < audit.bound.ceiling


def test_tied_scores_reveal_nothing_even_if_members_come_first() -> None:
    for members in (480, 500, 520):
        coins = np.arange(1000) < members
        for order in (coins, ~coins):
            audit = one_run_from_scores(np.zeros(1000), order, inclusion=INDEPENDENT, delta=0.0, confidence=0.95)
            assert audit.bound.lower == 0.0


def test_scores_with_infinities_are_ranked() -> None:
    coins = np.random.default_rng(0).random(100) < 0.5
    audit = one_run_from_scores(
        np.where(coins, np.inf, -np.inf), coins, inclusion=INDEPENDENT, delta=0.0, confidence=0.95, guesses=[80]
    )
    assert audit.correct == 80


# ---- Clopper-Pearson


@pytest.mark.parametrize(("fp", "n", "fn", "p"), [(0, 100, 0, 100), (3, 80, 20, 120), (0, 50, 49, 50), (40, 50, 1, 50)])
@pytest.mark.parametrize("delta", [0.0, 1e-2])
def test_clopper_pearson_is_the_formula_on_scipy_limits(fp: int, n: int, fn: int, p: int, delta: float) -> None:
    bound = clopper_pearson(fp, n, fn, p, delta=delta, confidence=0.95)
    # the upper end of a two-sided 95% interval is a one-sided 97.5% limit: half of the error for each rate
    fpr = stats.binomtest(fp, n).proportion_ci(0.95).high
    fnr = stats.binomtest(fn, p).proportion_ci(0.95).high
    ratios = [(1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr]
    assert bound.lower == pytest.approx(max(0.0, *(math.log(r) if r > 0 else 0.0 for r in ratios)), abs=1e-9)
    assert bound.lower <= bound.ceiling == clopper_pearson(0, n, 0, p, delta=delta, confidence=0.95).lower


def test_clopper_pearson_uses_both_directions() -> None:
    few_false_positives = clopper_pearson(0, 1000, 900, 1000, delta=0.0, confidence=0.95)
    few_false_negatives = clopper_pearson(900, 1000, 0, 1000, delta=0.0, confidence=0.95)
    assert few_false_positives.lower == pytest.approx(few_false_negatives.lower)
    assert few_false_positives.lower > 2
    assert {"independent" in a or "threshold" in a for a in few_false_positives.assumptions} == {True}
    assert few_false_positives.neighboring is Neighboring.ADD_REMOVE


def test_clopper_pearson_over_null_audits_and_known_mechanisms() -> None:
    rng = np.random.default_rng(7)
    for rate, truth in [((0.5, 0.5), 0.0), ((0.01, 0.99), 0.0), ((1 / (1 + math.e), 1 / (1 + math.e)), 1.0)]:
        errors = rng.binomial(500, rate, (AUDITS, 2))
        lower = [clopper_pearson(int(fp), 500, int(fn), 500, delta=0.0, confidence=0.95).lower for fp, fn in errors]
        assert_nominal(int((np.array(lower) > truth).sum()))
        assert min(lower) >= 0


# ---- refusals


@pytest.mark.parametrize("design", [FIXED, PAIRED])
def test_one_run_refuses_other_designs(design: Inclusion) -> None:
    with pytest.raises(ValueError, match=design.name):
        one_run_from_scores([0.0, 1.0], [False, True], inclusion=design, delta=0.0, confidence=0.95)


COINS = np.arange(100) % 2 == 0
REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("correct 5", lambda: one_run(10, 4, 5, delta=0.0, confidence=0.95)),
    ("guesses 11", lambda: one_run(10, 11, 5, delta=0.0, confidence=0.95)),
    ("correct -1", lambda: one_run(10, 4, -1, delta=0.0, confidence=0.95)),
    ("canaries is 0", lambda: one_run(0, 0, 0, delta=0.0, confidence=0.95)),
    ("delta is 1.0", lambda: one_run(10, 4, 2, delta=1.0, confidence=0.95)),
    ("delta is -0.1", lambda: one_run(10, 4, 2, delta=-0.1, confidence=0.95)),
    ("delta is nan", lambda: one_run(10, 4, 2, delta=math.nan, confidence=0.95)),
    ("confidence is 95", lambda: one_run(10, 4, 2, delta=0.0, confidence=95)),
    ("confidence is 0", lambda: clopper_pearson(1, 2, 1, 2, delta=0.0, confidence=0)),
    ("false_positives is 3", lambda: clopper_pearson(3, 2, 1, 2, delta=0.0, confidence=0.95)),
    ("false_negatives is -1", lambda: clopper_pearson(1, 2, -1, 2, delta=0.0, confidence=0.95)),
    ("positives is 0", lambda: clopper_pearson(1, 2, 0, 0, delta=0.0, confidence=0.95)),
    ("delta is 2", lambda: clopper_pearson(1, 2, 1, 2, delta=2, confidence=0.95)),
    (
        "NaN",
        lambda: one_run_from_scores(np.full(100, np.nan), COINS, inclusion=INDEPENDENT, delta=0.0, confidence=0.95),
    ),
    (
        r"probability is 0\.3",
        lambda: one_run_from_scores(
            np.zeros(100), COINS, inclusion=INDEPENDENT, delta=0.0, confidence=0.95, probability=0.3
        ),
    ),
    (
        "100 of 100",
        lambda: one_run_from_scores(
            np.zeros(100), np.ones(100, bool), inclusion=INDEPENDENT, delta=0.0, confidence=0.95
        ),
    ),
    (
        "even numbers",
        lambda: one_run_from_scores(
            np.zeros(100), COINS, inclusion=INDEPENDENT, delta=0.0, confidence=0.95, guesses=[5]
        ),
    ),
    (
        "comparisons is 0",
        lambda: one_run_from_scores(
            np.zeros(100), COINS, inclusion=INDEPENDENT, delta=0.0, confidence=0.95, comparisons=0
        ),
    ),
    (
        "1 canaries",
        lambda: one_run_from_scores([1.0], [True], inclusion=INDEPENDENT, delta=0.0, confidence=0.95),
    ),
    ("lower bound is", lambda: replace(one_run(10, 4, 2, delta=0.0, confidence=0.95), lower=-1.0)),
    ("lower bound is", lambda: replace(one_run(10, 4, 2, delta=0.0, confidence=0.95), lower=99.0)),
]


@pytest.mark.parametrize(("message", "call"), REFUSED)
def test_errors_name_the_value(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
