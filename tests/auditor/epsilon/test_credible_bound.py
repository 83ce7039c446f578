"""The credible bound against other integrations of the same posterior, and how often it exceeds a known truth."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from bound_simulations import AUDITS, DELTA, assert_nominal, gaussian_noise
from scipy import stats

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.credible_bound import epsilon_quantile, joint_credible, posterior_above
from auditor.epsilon.one_run_bound import clopper_pearson
from defenses.guarantee import Neighboring, Unit

COUNTS = [
    (0, 10, 0, 10),
    (3, 40, 12, 60),
    (0, 1000, 300, 1000),
    (900, 1000, 0, 1000),
    (5, 10, 200_000, 1_000_000),  # one side wide, the other a needle
    (200_000, 1_000_000, 5, 10),
    (10, 10, 0, 10),
    (1, 2, 1, 1),
]


def naive_above(epsilon: float, fp: int, n: int, fn: int, p: int, delta: float) -> float:
    """The same probability as a mean over equally likely FPRs: monotone in them, so exact to 1 / 50,000."""
    fpr = stats.beta.ppf((np.arange(50_000) + 0.5) / 50_000, fp + 0.5, n - fp + 0.5)
    edge = np.maximum(1 - delta - math.exp(epsilon) * fpr, math.exp(-epsilon) * (1 - delta - fpr))
    return float(stats.beta.cdf(np.maximum(edge, 0), fn + 0.5, p - fn + 0.5).mean())


@pytest.mark.parametrize(("fp", "n", "fn", "p"), COUNTS)
@pytest.mark.parametrize("delta", [0.0, 1e-2])
def test_the_posterior_is_that_of_a_plain_mean(fp: int, n: int, fn: int, p: int, delta: float) -> None:
    for epsilon in (0.0, 0.3, 1.0, 4.0):
        found = posterior_above(epsilon, fp, n, fn, p, delta=delta)
        assert found == pytest.approx(naive_above(epsilon, fp, n, fn, p, delta), abs=2e-5)


@pytest.mark.parametrize(("fp", "n", "fn", "p"), COUNTS)
def test_both_orders_of_integration_agree_closely(fp: int, n: int, fn: int, p: int) -> None:
    for epsilon, delta in itertools.product((0.0, 1.0, 6.0), (0.0, 1e-5, 0.1)):
        one = posterior_above(epsilon, fp, n, fn, p, delta=delta)
        assert one == pytest.approx(posterior_above(epsilon, fn, p, fp, n, delta=delta), abs=1e-9)


@pytest.mark.parametrize(("wrong", "n"), [(0, 1), (3, 20), (400, 1000), (10**6, 3 * 10**6)])
def test_a_test_that_guesses_is_on_either_side_of_chance_alike(wrong: int, n: int) -> None:
    assert posterior_above(0.0, wrong, n, n - wrong, n, delta=0.0) == pytest.approx(0.5, abs=1e-8)


def test_at_epsilon_zero_it_is_the_chance_that_one_beta_beats_another() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.beta(20.5, 80.5, 10**6), rng.beta(70.5, 30.5, 10**6)
    assert posterior_above(0.0, 20, 100, 70, 100, delta=0.0) == pytest.approx(float((x + y < 1).mean()), abs=2e-3)


@pytest.mark.parametrize("probability", [0.025, 0.05, 0.5, 0.975])
def test_quantiles_invert_the_posterior(probability: float) -> None:
    for fp, n, fn, p in [(0, 100, 0, 100), (20, 100, 25, 120), (5, 10, 1000, 10_000)]:
        epsilon = epsilon_quantile(probability, fp, n, fn, p, delta=DELTA)
        if epsilon > 0:
            assert posterior_above(epsilon, fp, n, fn, p, delta=DELTA) == pytest.approx(1 - probability, abs=1e-8)
        else:
            assert posterior_above(0.0, fp, n, fn, p, delta=DELTA) <= 1 - probability


def test_the_joint_region_shows_more_than_two_intervals_and_less_than_the_estimate() -> None:
    for fp, fn in [(0, 0), (20, 30), (5, 200), (300, 1)]:
        bound = joint_credible(fp, 500, fn, 500, delta=DELTA, confidence=0.95)
        assert clopper_pearson(fp, 500, fn, 500, delta=DELTA, confidence=0.95).lower < bound.lower
        if min(fp, fn) > 0:
            estimate = max(math.log((500 - fn) / fp), math.log((500 - fp) / fn))
            assert bound.lower < estimate
        assert bound.lower <= bound.ceiling == joint_credible(0, 500, 0, 500, delta=DELTA, confidence=0.95).lower


def test_it_is_monotone() -> None:
    def lower(fp: int = 20, fn: int = 30, delta: float = DELTA, confidence: float = 0.95) -> float:
        return joint_credible(fp, 200, fn, 200, delta=delta, confidence=confidence).lower

    assert lower(fp=0) > lower(fp=20) > lower(fp=60) > lower(fp=180) == 0
    assert lower(confidence=0.5) > lower(confidence=0.99)
    assert lower(delta=0) > lower(delta=0.1)


def share_above(epsilon: float, rates: tuple[float, float], delta: float) -> int:
    """Of 1,000 audits with 300 runs on each side, how many say "above epsilon" at 95%."""
    errors = np.random.default_rng(1).binomial(300, rates, (AUDITS, 2))
    distinct, times = np.unique(errors, axis=0, return_counts=True)
    above = [posterior_above(epsilon, int(fp), 300, int(fn), 300, delta=delta) > 0.95 for fp, fn in distinct]
    return int(times[np.array(above)].sum())


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_null_audits_rarely_show_anything(rate: float) -> None:
    assert_nominal(share_above(0.0, (rate, 1 - rate), 0.0))


@pytest.mark.parametrize("threshold", [-4.0, 0.0, 4.0])
def test_audits_of_a_gaussian_stay_below_its_epsilon(threshold: float) -> None:
    mu = 1 / gaussian_noise(1.0, DELTA)
    assert_nominal(share_above(1.0, (stats.norm.sf(threshold), stats.norm.cdf(threshold - mu)), DELTA))


def test_for_randomised_response_the_level_is_no_rate_of_coverage() -> None:
    rate = 1 / (1 + math.e)
    assert 0.05 * AUDITS < share_above(1.0, (rate, rate), 0.0) < 0.15 * AUDITS
    bound = joint_credible(27, 100, 27, 100, delta=0.0, confidence=0.95)
    assert bound.kind is BoundKind.CREDIBLE
    assert any("not a rate of coverage" in assumption for assumption in bound.assumptions)


def test_it_names_what_it_rests_on() -> None:
    bound = joint_credible(
        1, 50, 2, 60, delta=DELTA, confidence=0.9, neighboring=Neighboring.REPLACE_ONE, unit=Unit.USER
    )
    assert (bound.neighboring, bound.unit, bound.delta) == (Neighboring.REPLACE_ONE, Unit.USER, DELTA)
    assert bound.confidence == 0.9


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("delta is 1", lambda: joint_credible(1, 2, 1, 2, delta=1.0, confidence=0.95)),
        ("delta is nan", lambda: joint_credible(1, 2, 1, 2, delta=math.nan, confidence=0.95)),
        ("confidence is 95", lambda: joint_credible(1, 2, 1, 2, delta=0.0, confidence=95)),
        ("confidence is nan", lambda: joint_credible(1, 2, 1, 2, delta=0.0, confidence=math.nan)),
        ("false_positives is 3", lambda: joint_credible(3, 2, 1, 2, delta=0.0, confidence=0.95)),
        ("false_negatives is nan", lambda: joint_credible(1, 2, math.nan, 2, delta=0.0, confidence=0.95)),  # type: ignore[arg-type]
        ("negatives is 0", lambda: joint_credible(0, 0, 1, 2, delta=0.0, confidence=0.95)),
        ("epsilon is -1", lambda: posterior_above(-1.0, 1, 2, 1, 2, delta=0.0)),
        ("epsilon is nan", lambda: posterior_above(math.nan, 1, 2, 1, 2, delta=0.0)),
        ("probability is 0", lambda: epsilon_quantile(0.0, 1, 2, 1, 2, delta=0.0)),
    ],
)
def test_errors_name_the_value(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
