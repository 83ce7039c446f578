"""The reconstruction bound against closed forms for full batches and for one sampled step."""

import math

import pytest
from scipy import stats

from attacks.reconstruction.rero import rero_bound

NORMAL = stats.norm


@pytest.mark.parametrize("kappa", [1e-4, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 50), (0.6, 1), (20.0, 1)])
def test_full_batches_have_a_closed_form(kappa: float, sigma: float, steps: int) -> None:
    exact = NORMAL.cdf(NORMAL.ppf(kappa) + math.sqrt(steps) / sigma)
    found = rero_bound(kappa, sampling_probability=1.0, noise_multiplier=sigma, steps=steps)
    assert exact - 1e-9 <= found <= exact + 2e-3


@pytest.mark.parametrize("kappa", [1e-3, 0.05, 0.3])
@pytest.mark.parametrize(("q", "sigma"), [(0.1, 0.5), (0.5, 1.0), (0.01, 1.0)])
def test_one_sampled_step_is_the_most_powerful_test_in_the_right_direction(
    kappa: float, q: float, sigma: float
) -> None:
    # With the record: (1 - q) N(0) + q N(1); without: N(0). Large outputs speak for the record.
    threshold = -sigma * NORMAL.ppf(kappa)
    exact = (1 - q) * kappa + q * NORMAL.sf((threshold - 1) / sigma)
    found = rero_bound(kappa, sampling_probability=q, noise_multiplier=sigma, steps=1)
    assert found == pytest.approx(exact, abs=2e-4)  # the worse of both directions would be another number


def test_it_grows_with_steps_and_rate_and_shrinks_with_noise() -> None:
    def bound(**changes: float) -> float:
        settings = {"sampling_probability": 0.05, "noise_multiplier": 1.0, "steps": 200} | changes
        return rero_bound(0.1, **settings)  # type: ignore[arg-type]

    usual = bound()
    assert 0.1 < bound(steps=20) < usual < bound(steps=2000) <= 1
    assert bound(noise_multiplier=2.0) < usual < bound(sampling_probability=0.2)
    assert rero_bound(1.0, sampling_probability=0.5, noise_multiplier=1.0, steps=10) == 1.0
    assert bound(noise_multiplier=1e4) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("kappa", "changes", "name"),
    [
        (0.0, {}, "prior_success"),
        (1.5, {}, "prior_success"),
        (math.nan, {}, "prior_success"),
        (0.1, {"sampling_probability": 0.0}, "sampling_probability"),
        (0.1, {"noise_multiplier": 0.0}, "noise_multiplier"),
        (0.1, {"steps": 0}, "steps"),
    ],
)
def test_wrong_input(kappa: float, changes: dict[str, float], name: str) -> None:
    settings = {"sampling_probability": 0.1, "noise_multiplier": 1.0, "steps": 10} | changes
    with pytest.raises(ValueError, match=f"{name} is"):
        rero_bound(kappa, **settings)  # type: ignore[arg-type]
