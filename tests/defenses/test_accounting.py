"""Prices against closed forms and against Opacus, and calibration never on the less private side."""

import math
import warnings

import dp_accounting
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from defenses.accounting import account, account_run
from defenses.calibration import calibrate
from defenses.defense import History
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Balle and Wang 2018: the exact epsilon of a Gaussian mechanism with sensitivity over sigma = mu."""

    def excess(epsilon: float) -> float:
        found = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        return float(found - delta)

    return float(brentq(excess, 0, 200))


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 30])
def test_gaussian_has_its_closed_form(noise: float, steps: int) -> None:
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), steps)
    found = account(event, delta=1e-5)
    assert isinstance(found, Guarantee)
    exact = gaussian_epsilon(math.sqrt(steps) / noise, 1e-5)
    assert exact <= found.epsilon + 1e-9
    assert found.epsilon == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("neighboring", [Neighboring.ADD_REMOVE, Neighboring.REPLACE_ONE])
def test_hardly_any_noise_is_priced_on_a_coarser_grid(neighboring: Neighboring) -> None:
    """An epsilon of thousands needs no grid as fine as one of ones, which would not fit into memory."""
    found = account(
        dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(0.1), 100), delta=1e-5, neighboring=neighboring
    )
    assert isinstance(found, Guarantee)
    mu = 100 * (2 if neighboring is Neighboring.REPLACE_ONE else 1)
    exact = mu * mu / 2 - mu * norm.ppf(1e-5)  # the second term of the profile is nothing at such epsilons
    assert exact * (1 - 1e-4) <= found.epsilon <= exact * 1.01


def test_replacing_a_record_costs_twice_the_sensitivity() -> None:
    found = account(dp_accounting.GaussianDpEvent(2.0), delta=1e-5, neighboring=Neighboring.REPLACE_ONE)
    assert isinstance(found, Guarantee)
    assert found.neighboring is Neighboring.REPLACE_ONE
    assert found.epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-5), rel=2e-3)


@pytest.mark.parametrize(("members", "lot", "epochs", "noise"), [(4000, 128, 40, 1.0), (1500, 150, 60, 3.0)])
def test_epsilon_is_that_of_opacus(members: int, lot: int, epochs: int, noise: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant

        theirs = PRVAccountant()
        lots = Lots(members, lot, epochs)
        theirs.history = [(noise, lots.sampling_probability, lots.steps)]
        expected = theirs.get_epsilon(delta=1e-5)
    found = account_run(DPSGD(noise_multiplier=noise), History(lots), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.epsilon == pytest.approx(expected, rel=0.02)


def test_epsilon_at_tells_the_whole_curve() -> None:
    found = account(dp_accounting.GaussianDpEvent(1.0), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.epsilon_at is not None
    assert found.epsilon_at(1e-5) == found.epsilon
    assert found.epsilon_at(1e-3) == pytest.approx(gaussian_epsilon(1.0, 1e-3), rel=2e-3)


def test_no_noise_is_no_privacy() -> None:
    lots = Lots(100, 10, 1)
    for scheme in (NoDefense(), DPSGD(noise_multiplier=0.0)):
        found = account_run(scheme, History(lots), delta=1e-5)
        assert isinstance(found, Guarantee)
        assert found.epsilon == math.inf


def test_what_no_accountant_knows_is_unaccounted() -> None:
    found = account(dp_accounting.UnsupportedDpEvent(), delta=1e-5)
    assert isinstance(found, Unaccounted)
    assert "UnsupportedDpEvent" in found.reason
    reason = Unaccounted("the threshold follows raw norms")
    assert account(reason, delta=1e-5) is reason


@pytest.mark.parametrize("epsilon", [0.1, 2.0, 10.0])
def test_calibration_meets_its_target_and_wastes_little(epsilon: float) -> None:
    lots = Lots(2000, 100, 10)
    scheme = DPSGD(epsilon=epsilon)
    found = account_run(scheme, History(lots), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.epsilon <= epsilon
    less = account_run(DPSGD(noise_multiplier=scheme.noise(lots) * 0.995), History(lots), delta=1e-5)
    assert isinstance(less, Guarantee)
    assert less.epsilon > epsilon


@pytest.mark.parametrize(
    ("epsilon", "delta", "words"), [(0.0, 1e-5, "epsilon is 0"), (math.inf, 1e-5, "inf"), (1.0, 0.0, "delta is 0")]
)
def test_impossible_targets_are_refused(epsilon: float, delta: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrate(dp_accounting.GaussianDpEvent, epsilon=epsilon, delta=delta)


def test_delta_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"delta is 1\.5"):
        account(dp_accounting.GaussianDpEvent(1.0), delta=1.5)


def test_a_tiny_epsilon_is_not_a_contradiction_of_the_accountants() -> None:
    """Over thousands of steps the PLD's rounding exceeds an epsilon of a hundredth; both are upper bounds."""
    step = dp_accounting.PoissonSampledDpEvent(1 / 3000, dp_accounting.GaussianDpEvent(8.0))
    found = account(dp_accounting.SelfComposedDpEvent(step, 3000), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert 0 < found.epsilon < 0.01
