"""DP-SGD: flat per-example clipping, Gaussian noise, Poisson sampling, public normaliser (Abadi et al. 2016)."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import dp_accounting

from defenses.calibration import calibrate
from defenses.defense import Defense, History, Sampler, StepPromise
from defenses.gradients import ClippedGaussian
from defenses.guarantee import Guarantee
from defenses.sampling import Lots


@dataclass(frozen=True, kw_only=True)
class DPSGD(Defense):
    """Differentially private stochastic gradient descent.

    Give either the noise or the epsilon it is to be chosen for.

    Attributes:
        epsilon: Target epsilon in nats; the least noise that meets it is used.
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`.
        max_grad_norm: Clipping threshold C of each example's whole gradient in L2; it does not enter epsilon.
        delta: Failure probability of the guarantee, well below 1 / records.

    Raises:
        ValueError: If both or neither of epsilon and noise_multiplier are given, or a value is out of range.

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1; the noisy sum is divided by the
    expected, not the realised lot size.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float = 1.0
    delta: float = 1e-5

    name = "dp_sgd"
    title = "DP-SGD"
    paper = "Abadi et al. 2016, Deep Learning with Differential Privacy"
    sampler = Sampler.POISSON
    example = {"noise_multiplier": 1.0}

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                f"epsilon is {self.epsilon} and noise_multiplier {self.noise_multiplier}; give exactly one of the two"
            )
        if self.epsilon is not None and not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon is {self.epsilon}; it must be above 0 and finite")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must be in (0, 1)")
        ClippedGaussian(self.max_grad_norm, self.noise_multiplier or 0.0)

    def noise(self, lots: Lots) -> float:
        """Return the noise multiplier that a run with these lots uses."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        assert self.epsilon is not None
        return _calibrated(lots, self.epsilon, self.delta)

    def gradient(self, lots: Lots) -> ClippedGaussian:
        """Return the clipping rule with this run's noise."""
        return ClippedGaussian(self.max_grad_norm, self.noise(lots))

    def steps(self, lots: Lots) -> StepPromise | None:
        """Return the clipping norm and the noise, where there is any."""
        noise = self.noise(lots)

        def priced(noise_multiplier: float) -> Any:
            return replace(self, epsilon=None, noise_multiplier=noise_multiplier).event(History(lots))

        return None if noise == 0 else StepPromise((self.max_grad_norm,), noise, priced)

    def fixed(self, lots: Lots) -> "DPSGD":
        """Return the scheme with a given noise in place of a target."""
        return replace(self, epsilon=None, noise_multiplier=self.noise(lots))

    def event(self, history: History) -> Any:
        """Return the self-composed Poisson-sampled Gaussian."""
        return _event(history.lots, self.noise(history.lots))

    def claimed(self, history: History) -> Guarantee:
        """Return the target epsilon, or what the accountant finds for a given noise multiplier."""
        if self.epsilon is not None:
            return Guarantee(self.epsilon, self.delta, self.neighboring, self.unit, accountant="target of the plan")
        from defenses.accounting import account

        found = account(self.event(history), delta=self.delta, neighboring=self.neighboring)
        assert isinstance(found, Guarantee)
        return Guarantee(found.epsilon, self.delta, self.neighboring, self.unit, accountant=found.accountant)

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        return (
            "lots are drawn by independent coins (Poisson sampling), as this engine does",
            "noise is floating-point Gaussian from a pseudo-random generator with a secret seed, as if it were exact",
            "the nominal training size, lot size, epochs and architecture are public",
        )


def _event(lots: Lots, noise_multiplier: float) -> Any:
    if noise_multiplier == 0:
        return dp_accounting.NonPrivateDpEvent()
    step = dp_accounting.PoissonSampledDpEvent(
        lots.sampling_probability, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return dp_accounting.SelfComposedDpEvent(step, lots.steps)


@functools.lru_cache(maxsize=64)
def _calibrated(lots: Lots, epsilon: float, delta: float) -> float:
    return calibrate(functools.partial(_event, lots), epsilon=epsilon, delta=delta)
