"""What the tests of bounds share: mechanisms whose epsilon is known, and how often a bound may exceed it."""

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

AUDITS = 1000
DELTA = 1e-5


def assert_nominal(errors: int, trials: int = AUDITS, rate: float = 0.05) -> None:
    """Fail only if so many errors are implausible (one in a thousand) at the nominal rate."""
    assert stats.binomtest(errors, trials, rate, alternative="greater").pvalue > 1e-3, f"{errors} of {trials}"


@functools.cache
def gaussian_noise(epsilon: float, delta: float) -> float:
    """Standard deviation at sensitivity 1, by the exact trade-off (Balle and Wang 2018)."""

    def excess(sigma: float) -> float:
        a, b = 1 / (2 * sigma), epsilon * sigma
        return float(stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b)) - delta

    return float(optimize.brentq(excess, 0.1, 100))


def noisy_scores(mechanism: str, included: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Scores of records under a mechanism at epsilon 1 (and DELTA, for gaussian), or at 0 for null."""
    if mechanism == "null":
        return rng.normal(size=included.shape)
    if mechanism == "gaussian":
        return included + gaussian_noise(1.0, DELTA) * rng.normal(size=included.shape)
    if mechanism == "laplace":
        return included + rng.laplace(size=included.shape)
    assert mechanism == "response"
    kept = rng.random(included.shape) < math.e / (1 + math.e)
    return np.where(kept, included, ~included).astype(np.float64)
