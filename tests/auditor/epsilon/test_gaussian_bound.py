"""The Gaussian trade-off against other ways to compute it, and the bound on simulated mechanisms."""

import itertools
import math
from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
from bound_simulations import AUDITS, DELTA, assert_nominal, gaussian_noise
from scipy import integrate, special, stats

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.gaussian_bound import gaussian_dp, gaussian_epsilon, gaussian_mu, mu_limit
from auditor.epsilon.one_run_bound import clopper_pearson
from defenses.guarantee import Neighboring, Unit


def log_delta(epsilon: float, mu: float) -> float:
    """Expected excess of the privacy loss over epsilon: an integral of one sign, with its largest factor taken out."""
    x = epsilon / mu - mu / 2
    scale = max(x, 0.0)

    def excess(s: float) -> float:
        return math.exp(-(s * s / 2 + x * s + min(x, 0.0) ** 2 / 2)) * -math.expm1(-mu * s)

    far = max(-x, 0.0) + 40 / (scale + 1)
    cuts = np.linspace(0, far, 41)
    total = math.fsum(integrate.quad(excess, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in itertools.pairwise(cuts))
    return math.log(total) - scale**2 / 2 - math.log(2 * math.pi) / 2


@pytest.mark.parametrize("mu", [0.05, 0.3, 0.999, 1.0, 1.001, 3.0, 8.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 1e-2, 0.3])
def test_epsilon_and_mu_agree_with_dp_accounting(mu: float, delta: float) -> None:
    epsilon = dp_accounting.get_epsilon_gaussian(1 / mu, delta)
    assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-9, abs=1e-10)
    if epsilon > 0:
        assert gaussian_mu(epsilon, delta) == pytest.approx(
            1 / dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-8
        )


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.5, 0.9999999, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("delta", [1e-300, 1e-100, 1e-30, 1e-12, 1e-5])
def test_epsilon_solves_the_privacy_profile_far_into_the_tail(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert log_delta(epsilon, mu) == pytest.approx(math.log(delta), abs=1e-9)
    assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-11)


def test_epsilon_is_monotone_through_all_its_branches() -> None:
    grid = np.geomspace(1e-3, 60, 400)
    epsilons = [gaussian_epsilon(float(mu), DELTA) for mu in grid]
    assert (np.diff(epsilons) > 0).all()
    assert gaussian_epsilon(2.0, 1e-6) > gaussian_epsilon(2.0, 1e-5) > gaussian_epsilon(2.0, 0.6) > 0


def test_delta_alone_allows_a_small_mu() -> None:
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    mu = gaussian_mu(0.0, 0.2)
    assert mu == pytest.approx(2 * stats.norm.ppf(0.6))
    assert gaussian_epsilon(mu * (1 - 1e-9), 0.2) == 0.0
    assert 0 < gaussian_epsilon(mu * (1 + 1e-6), 0.2) < 1e-4
    for exact in np.linspace(0.01, 3, 50):  # where rounding decides on which side of 0 the solution lies
        assert gaussian_epsilon(float(exact), float(special.erf(exact / math.sqrt(8)))) == pytest.approx(0, abs=1e-9)


def test_extreme_arguments_have_answers() -> None:
    assert gaussian_epsilon(1e-300, 1e-5) == 0.0
    assert gaussian_epsilon(1e4, 1e-5) == pytest.approx(1e8 / 2, rel=0.01)  # mu^2 / 2 + mu Phi^-1(1 - delta)
    assert gaussian_epsilon(1e4, 1 - 1e-12) < 1e8 / 2
    assert 0 < gaussian_mu(1e-12, 1e-300) < 1e-12
    assert gaussian_mu(1e6, 0.999) > 1e3


@pytest.mark.parametrize(
    ("fp", "n", "fn", "p"), [(0, 100, 0, 100), (3, 80, 20, 120), (100, 400, 100, 400), (40, 50, 1, 50)]
)
def test_the_bound_is_the_formula_on_scipy_limits(fp: int, n: int, fn: int, p: int) -> None:
    bound = gaussian_dp(fp, n, fn, p, delta=DELTA, confidence=0.95)
    fpr = stats.binomtest(fp, n).proportion_ci(0.95).high
    fnr = stats.binomtest(fn, p).proportion_ci(0.95).high
    mu = max(stats.norm.ppf(1 - fpr) - stats.norm.ppf(fnr), 0.0)
    expected = dp_accounting.get_epsilon_gaussian(1 / mu, DELTA) if mu > 0 else 0.0
    assert bound.lower == pytest.approx(expected, abs=1e-8)
    assert bound.lower <= bound.ceiling == gaussian_dp(0, n, 0, p, delta=DELTA, confidence=0.95).lower
    assert bound.lower == pytest.approx(gaussian_dp(fn, p, fp, n, delta=DELTA, confidence=0.95).lower, rel=1e-12)


def test_the_bound_clamps_at_zero() -> None:
    for fp, fn in [(50, 50), (100, 0), (0, 100), (100, 100), (60, 60)]:
        assert gaussian_dp(fp, 100, fn, 100, delta=DELTA, confidence=0.95).lower == 0.0


def test_the_bound_names_what_it_rests_on() -> None:
    bound = gaussian_dp(1, 50, 2, 60, delta=DELTA, confidence=0.9, neighboring=Neighboring.REPLACE_ONE, unit=Unit.USER)
    assert (bound.neighboring, bound.unit, bound.kind) == (Neighboring.REPLACE_ONE, Unit.USER, BoundKind.CONFIDENCE)
    assert (bound.delta, bound.confidence) == (DELTA, 0.9)
    assert any("Gaussian" in assumption for assumption in bound.assumptions)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [-1.5, 0.0, 0.4, 2.0])
def test_audits_of_gaussians_are_above_the_truth_at_most_nominally(epsilon: float, threshold: float) -> None:
    rng = np.random.default_rng(1)
    mu = 0.0 if epsilon == 0 else 1 / gaussian_noise(epsilon, DELTA)
    rates = stats.norm.sf(threshold), stats.norm.cdf(threshold - mu)
    false_positives, false_negatives = rng.binomial(300, rates, (AUDITS, 2)).T
    shown = mu_limit(false_positives, 300, false_negatives, 300, error=0.05)
    assert_nominal(int((shown > mu).sum()))
    top = int(shown.argmax())
    bound = gaussian_dp(int(false_positives[top]), 300, int(false_negatives[top]), 300, delta=DELTA, confidence=0.95)
    assert bound.lower == gaussian_epsilon(float(shown[top]), DELTA)


def test_the_shape_reaches_where_counting_cannot() -> None:
    mu = 1 / gaussian_noise(8.0, DELTA)
    errors = round(2000 * stats.norm.cdf(-mu / 2))
    counted = clopper_pearson(errors, 2000, errors, 2000, delta=DELTA, confidence=0.95)
    assert (
        counted.lower < 0.5 * 8 < 0.85 * 8 < gaussian_dp(errors, 2000, errors, 2000, delta=DELTA, confidence=0.95).lower
    )


def test_the_shape_is_wrong_for_laplace_noise() -> None:
    rng = np.random.default_rng(2)
    rate = math.exp(-0.5) / 2  # both error rates of the Laplace mechanism at epsilon 1, threshold one half
    shown = mu_limit(*(rng.binomial(1000, rate, AUDITS), 1000), *(rng.binomial(1000, rate, AUDITS), 1000), error=0.05)
    above = (shown > gaussian_mu(1.0, DELTA)).mean()
    assert above > 0.99


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("delta is 0", lambda: gaussian_dp(1, 2, 1, 2, delta=0.0, confidence=0.95)),
        ("delta is 1", lambda: gaussian_dp(1, 2, 1, 2, delta=1.0, confidence=0.95)),
        ("delta is nan", lambda: gaussian_epsilon(1.0, math.nan)),
        ("confidence is 95", lambda: gaussian_dp(1, 2, 1, 2, delta=DELTA, confidence=95)),
        ("false_positives is 3", lambda: gaussian_dp(3, 2, 1, 2, delta=DELTA, confidence=0.95)),
        ("false_negatives is -1", lambda: gaussian_dp(1, 2, -1, 2, delta=DELTA, confidence=0.95)),
        ("false_positives is nan", lambda: gaussian_dp(math.nan, 2, 1, 2, delta=DELTA, confidence=0.95)),  # type: ignore[arg-type]
        ("false_positives is 0.5", lambda: gaussian_dp(0.5, 2, 1, 2, delta=DELTA, confidence=0.95)),  # type: ignore[arg-type]
        ("positives is 0", lambda: gaussian_dp(1, 2, 0, 0, delta=DELTA, confidence=0.95)),
        ("mu is -1", lambda: gaussian_epsilon(-1.0, DELTA)),
        ("mu is nan", lambda: gaussian_epsilon(math.nan, DELTA)),
        ("mu is inf", lambda: gaussian_epsilon(math.inf, DELTA)),
        ("epsilon is -1", lambda: gaussian_mu(-1.0, DELTA)),
        ("epsilon is nan", lambda: gaussian_mu(math.nan, DELTA)),
        ("epsilon is inf", lambda: gaussian_mu(math.inf, DELTA)),
        ("delta is 0", lambda: gaussian_mu(1.0, 0.0)),
    ],
)
def test_errors_name_the_value(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
