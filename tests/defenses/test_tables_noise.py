"""Integer Laplace noise: exact, of the right scale, and the same from the key stream as from opendp."""

import math
from fractions import Fraction

import numpy as np
import pytest
from opendp.mod import GLOBAL_FEATURES
from scipy import stats

from defenses.mechanisms.tables.discrete_laplace import GRAIN, KeyStream, add_by_opendp, noise_scale

SCALES = [Fraction(1, 3), Fraction(1), Fraction(73, 10), Fraction(28), Fraction(1000)]


def ks(noise: np.ndarray, scale: float) -> float:
    """P-value of a Kolmogorov-Smirnov test on the midpoints of the jumps of the distribution function."""
    law = stats.dlaplace(1 / scale)
    spread = noise + np.random.default_rng(0).random(len(noise))  # uniform within each step: exactly continuous
    return float(stats.kstest(spread, lambda at: law.cdf(np.floor(at) - 1) + (at % 1) * law.pmf(np.floor(at))).pvalue)


@pytest.mark.parametrize("scale", SCALES)
def test_the_key_stream_draws_the_discrete_laplace_law(scale: Fraction) -> None:
    noise = KeyStream(b"a secret of 16 b").laplace(scale, 100_000)
    assert ks(noise, float(scale)) > 1e-3
    assert ks(noise, float(scale) * 1.05) < 1e-3  # and the test would see a scale that is off by a twentieth
    ratio = math.exp(-1 / float(scale))
    assert (noise == 0).mean() == pytest.approx((1 - ratio) / (1 + ratio), abs=5e-3)  # zero is drawn once, not twice


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(5), Fraction(182)])
def test_the_key_stream_and_opendp_agree(scale: Fraction) -> None:
    ours = KeyStream(b"another 16 bytes").laplace(scale, 40_000)
    theirs = add_by_opendp(np.zeros(40_000, np.int64), scale, sensitivity=1, epsilon=float(1 / scale))
    edges = np.unique(np.quantile(ours, np.linspace(0, 1, 21)))
    counts = [np.histogram(each, [-np.inf, *edges[1:-1], np.inf])[0] for each in (ours, theirs)]
    assert stats.chi2_contingency(counts).pvalue > 1e-6  # opendp cannot be seeded: one run in a million fails


def test_coins_have_the_exact_chance() -> None:
    stream = KeyStream(bytes(16))
    for numerator in (0, 3, 7, 10):
        heads = stream.decays(np.full(100_000, numerator, np.uint64), 10).mean()
        assert heads == pytest.approx(math.exp(-numerator / 10), abs=6e-3)


@pytest.mark.parametrize("bound", [1, 3, 100, 2**40 + 1])
def test_uniform_integers_stay_below_their_bound(bound: int) -> None:
    found = KeyStream(bytes(16)).below(np.full(30_000, bound, np.uint64))
    assert int(found.max()) < bound
    if bound > 1:
        assert stats.kstest((found + np.random.default_rng(0).random(30_000)) / bound, "uniform").pvalue > 1e-3


def test_noise_is_a_function_of_the_key() -> None:
    one, again, other = (KeyStream(key).laplace(Fraction(9), 500) for key in (b"k" * 16, b"k" * 16, b"l" * 16))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_scales_never_cost_more_than_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    for epsilon in np.exp(rng.uniform(-8, 5, 1000)):
        for sensitivity in (1, 2):
            scale = noise_scale(sensitivity, float(epsilon))
            assert Fraction(sensitivity) / scale <= Fraction(float(epsilon))
            assert (scale * GRAIN).denominator == 1
            assert Fraction(float(scale)) == scale  # opendp, which takes a float, gets the very same scale
            assert scale - sensitivity / Fraction(float(epsilon)) < Fraction(1, GRAIN)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan, 1e-12])
def test_a_budget_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is"):
        noise_scale(1, epsilon)


def test_opendp_itself_refuses_too_little_noise() -> None:
    with pytest.raises(ValueError, match="opendp prices this table at"):
        add_by_opendp(np.zeros(3, np.int64), Fraction(10), sensitivity=2, epsilon=0.1)


def test_opendps_global_switch_is_left_as_it_was() -> None:
    before = set(GLOBAL_FEATURES)
    found = add_by_opendp(np.arange(4), Fraction(1, 1000), sensitivity=1, epsilon=1000)
    np.testing.assert_array_equal(found, np.arange(4))  # with next to no noise: counts come back in order
    assert set(GLOBAL_FEATURES) == before
