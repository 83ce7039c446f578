"""The one-run bound on a Gaussian trade-off against the theorem it rests on, a linear program, and simulation."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from bound_simulations import AUDITS, DELTA, assert_nominal, gaussian_noise, noisy_scores
from scipy import optimize, stats

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.gaussian_bound import gaussian_epsilon, gaussian_mu
from auditor.epsilon.one_run_bound import one_run, one_run_from_scores
from auditor.epsilon.one_run_fdp_bound import one_run_fdp, refutes_mu
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

INDEPENDENT = Inclusion.INDEPENDENT


def likeliest_tail(m: int, r: int, c: int, mu: float) -> float:
    """Largest P[C >= c] of all distributions on 0..r that obey the theorem's inequality in every tail.

    The inequality bounds a linear function by a concave one, which is the least of its tangents: a linear program, to
    which the tangent at the last solution is added until none is violated.
    """
    counts = np.arange(r + 1)
    tails = [(np.where(counts > i, counts, 0) / m, np.where(counts >= i, r - counts, 0) / m) for i in range(r)]
    left, limit = [], []
    for _ in range(400):
        best = optimize.linprog(
            -(counts >= c).astype(float),
            A_ub=np.array(left) if left else None,
            b_ub=np.array(limit) if limit else None,
            A_eq=np.ones((1, r + 1)),
            b_eq=[1.0],
            bounds=(0, 1),
        )
        worst = 0.0
        for right, wrong in tails:
            at = min(max(float(wrong @ best.x), 1e-9), 1 - 1e-9)
            z = stats.norm.ppf(at)
            slope = math.exp(-mu * z - mu * mu / 2)
            worst = max(worst, float(right @ best.x) - stats.norm.cdf(z + mu))
            left.append(right - slope * wrong)
            limit.append(float(stats.norm.cdf(z + mu)) - slope * at)
        if worst < 1e-7:
            return float(-best.fun)
    raise AssertionError(f"still violated by {worst}")


def least_distribution(m: int, r: int, c: int, mu: float, error: float) -> list[float]:
    """Masses at 0..r, each the least that the inequality asks for, every sum taken anew."""
    p = [0.0] * (r + 1)
    p[c] = error
    normal = stats.norm
    for i in range(c - 1, -1, -1):
        right = math.fsum(k * p[k] for k in range(i + 1, r + 1)) / m
        wrong = math.fsum((r - k) * p[k] for k in range(i + 1, r + 1)) / m
        p[i] = max(0.0, (normal.cdf(normal.ppf(right) - mu) - wrong) * m / (r - i))
    return p


def shown_mu(canaries: int, guesses: int, correct: int, confidence: float) -> float:
    lower = one_run_fdp(canaries, guesses, correct, delta=DELTA, confidence=confidence).lower
    return gaussian_mu(lower, DELTA) if lower > 0 else 0.0


def test_one_canary_has_a_closed_form() -> None:
    # Guessed right with probability Phi(mu / 2) at best: 95% refutes every mu below 2 Phi^-1(0.95).
    assert shown_mu(1, 1, 1, 0.05) == pytest.approx(2 * stats.norm.ppf(0.95), abs=1e-7)
    assert shown_mu(1, 1, 1, 0.95) == 0.0


@pytest.mark.parametrize(("m", "r", "c"), [(5, 5, 5), (10, 10, 8), (14, 10, 9), (40, 12, 12), (60, 12, 10)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_no_distribution_that_obeys_the_theorem_has_a_heavier_tail(m: int, r: int, c: int, confidence: float) -> None:
    mu = shown_mu(m, r, c, confidence)
    if mu == 0:
        assert likeliest_tail(m, r, c, 0.0) >= 1 - confidence - 1e-6
    else:
        assert likeliest_tail(m, r, c, mu) == pytest.approx(1 - confidence, abs=2e-5)


@pytest.mark.parametrize(("m", "r", "c"), [(30, 30, 25), (100, 30, 30), (100, 60, 44), (60, 60, 60)])
@pytest.mark.parametrize("error", [0.05, 0.005])
def test_the_edge_is_where_the_least_distribution_has_mass_one(m: int, r: int, c: int, error: float) -> None:
    mu = shown_mu(m, r, c, 1 - error)
    assert mu > 0
    assert math.fsum(least_distribution(m, r, c, mu, error)) == pytest.approx(1, abs=1e-5)
    assert math.fsum(least_distribution(m, r, c, mu - 1e-4, error)) > 1 + 1e-6
    assert math.fsum(least_distribution(m, r, c, mu + 1e-4, error)) < 1 - 1e-6


@pytest.mark.parametrize("m", [3, 20, 100])
@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 2.5])
def test_no_tail_that_independent_gaussians_reach_is_refuted(m: int, mu: float) -> None:
    tails = stats.binom.sf(np.arange(m + 1) - 1, m, stats.norm.cdf(mu / 2))
    for correct in range(1, m + 1):
        if 1e-300 < tails[correct] < 1:
            assert not refutes_mu(m, m, correct, mu=mu, error=float(tails[correct])), correct


def abstaining(m: int, r: int, mu: float, rng: np.random.Generator, *, audits: int = AUDITS) -> npt.NDArray[np.int64]:
    """Right guesses of audits that guess only the r coins with the clearest outputs of a Gaussian mechanism."""
    coins = rng.random((audits, m)) < 0.5
    clear = mu * (coins - 0.5) + rng.normal(size=(audits, m))
    chosen = np.argpartition(-np.abs(clear), r - 1)[:, :r]
    right = (clear > 0) == coins
    return np.take_along_axis(right, chosen, axis=1).sum(axis=1)


def test_guessing_only_the_clearest_canaries_is_paid_for_by_their_number() -> None:
    mu, m, r = 1.0, 500, 20
    correct, times = np.unique(abstaining(m, r, mu, np.random.default_rng(1)), return_counts=True)
    above = np.array([refutes_mu(m, r, int(c), mu=mu, error=0.05) for c in correct])
    forgotten = np.array([refutes_mu(r, r, int(c), mu=mu, error=0.05) for c in correct])
    assert_nominal(int(times[above].sum()))
    assert times[forgotten].sum() > 0.2 * AUDITS  # as if the others had never been there


@pytest.mark.parametrize(("mechanism", "epsilon"), [("null", 0.0), ("gaussian", 1.0)])
def test_scores_of_known_mechanisms_are_above_the_truth_at_most_nominally(mechanism: str, epsilon: float) -> None:
    rng = np.random.default_rng(2)
    above = 0
    for _ in range(AUDITS):
        coins = rng.random(256) < 0.5
        scores = noisy_scores(mechanism, coins, rng)
        audit = one_run_from_scores(
            scores, coins, inclusion=INDEPENDENT, delta=DELTA, confidence=0.95, method=one_run_fdp
        )
        above += audit.bound.lower > epsilon
    assert_nominal(above)


def test_it_shows_more_of_a_gaussian_than_the_bound_without_a_shape() -> None:
    epsilon, m, r = 4.0, 5000, 100
    correct = int(np.median(abstaining(m, r, 1 / gaussian_noise(epsilon, DELTA), np.random.default_rng(3), audits=50)))
    shaped = one_run_fdp(m, r, correct, delta=DELTA, confidence=0.95).lower
    assert one_run(m, r, correct, delta=DELTA, confidence=0.95).lower < 0.5 * epsilon < 0.6 * epsilon < shaped < epsilon


def test_it_is_wrong_for_randomised_response() -> None:
    correct = np.random.default_rng(3).binomial(10_000, math.e / (1 + math.e), 20)
    bounds = [one_run_fdp(10_000, 10_000, int(c), delta=DELTA, confidence=0.95) for c in correct]
    assert all(bound.lower > 1.5 for bound in bounds)  # the truth is 1
    assert any("Gaussian" in assumption for assumption in bounds[0].assumptions)


def test_it_is_monotone_and_stays_below_its_ceiling() -> None:
    def lower(canaries: int = 500, guesses: int = 200, correct: int = 170, confidence: float = 0.95) -> float:
        return one_run_fdp(canaries, guesses, correct, delta=DELTA, confidence=confidence).lower

    assert 0 < lower(correct=130) < lower(correct=170) < lower(correct=190) < lower(correct=200)
    assert lower(confidence=0.9) > lower(confidence=0.99)
    assert lower(canaries=200) > lower(canaries=500) > lower(canaries=5000)
    bound = one_run_fdp(500, 200, 170, delta=DELTA, confidence=0.95)
    assert bound.lower < bound.ceiling == lower(correct=200)


def test_it_shows_nothing_where_nothing_is_to_be_seen() -> None:
    for guesses, correct in [(0, 0), (100, 0), (100, 50), (100, 40), (2, 2)]:
        assert one_run_fdp(100, guesses, correct, delta=DELTA, confidence=0.95).lower == 0.0
    assert one_run_fdp(100, 100, 70, delta=0.9, confidence=0.95).lower == 0.0  # delta alone allows that mu


def test_it_names_what_it_rests_on() -> None:
    bound = one_run_fdp(100, 50, 45, delta=DELTA, confidence=0.9)
    assert (bound.neighboring, bound.unit, bound.kind) == (Neighboring.ADD_REMOVE, Unit.RECORD, BoundKind.CONFIDENCE)
    assert (bound.delta, bound.confidence) == (DELTA, 0.9)
    assert any("coin" in assumption for assumption in bound.assumptions)


def test_it_is_stable_at_a_million() -> None:
    bounds = [one_run_fdp(10**6, 10**6, c, delta=DELTA, confidence=0.95) for c in (505_000, 691_462, 999_999)]
    assert (
        one_run_fdp(10**5, 10**5, 69_146, delta=DELTA, confidence=0.95).lower < bounds[1].lower
    )  # accuracy Phi(1 / 2)
    assert bounds[1].lower < gaussian_epsilon(1.0, DELTA)
    assert all(0 < bound.lower <= bound.ceiling for bound in bounds)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("correct 5", lambda: one_run_fdp(10, 4, 5, delta=DELTA, confidence=0.95)),
        ("guesses 11", lambda: one_run_fdp(10, 11, 5, delta=DELTA, confidence=0.95)),
        ("correct -1", lambda: one_run_fdp(10, 4, -1, delta=DELTA, confidence=0.95)),
        ("correct nan", lambda: one_run_fdp(10, 4, math.nan, delta=DELTA, confidence=0.95)),  # type: ignore[arg-type]
        ("correct 2.5", lambda: one_run_fdp(10, 4, 2.5, delta=DELTA, confidence=0.95)),  # type: ignore[arg-type]
        ("canaries is 0", lambda: one_run_fdp(0, 0, 0, delta=DELTA, confidence=0.95)),
        ("delta is 0", lambda: one_run_fdp(10, 4, 2, delta=0.0, confidence=0.95)),
        ("delta is nan", lambda: one_run_fdp(10, 4, 2, delta=math.nan, confidence=0.95)),
        ("confidence is 1", lambda: one_run_fdp(10, 4, 2, delta=DELTA, confidence=1.0)),
        (
            "PAIRED_RUNS",
            lambda: one_run_from_scores(
                [0.0, 1.0],
                [False, True],
                inclusion=Inclusion.PAIRED_RUNS,
                delta=DELTA,
                confidence=0.95,
                method=one_run_fdp,
            ),
        ),
    ],
)
def test_errors_name_the_value(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
