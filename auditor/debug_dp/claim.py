"""What a run under test claims to be: its numbers, what they cost, and what other numbers would have cost."""

import functools
from dataclasses import dataclass
from typing import Any

import dp_accounting

from auditor.epsilon.bound import BoundKind, EpsilonBound
from defenses.accounting import account
from defenses.guarantee import Guarantee, Neighboring, Unit

# Below this the accountant needs many seconds; a bound may stop there, since less noise only costs more.
_LEAST_NOISE = 0.5


@dataclass(frozen=True)
class Claim:
    """A DP-SGD run with Poisson sampling, as it is priced.

    Attributes:
        records: Nominal number of records, public, at least 1.
        expected_batch_size: Mean size of a lot and the constant that sums are divided by, in 1 .. records. Half of the
            records by default: a canary that is rarely drawn takes many runs to be seen.
        steps: Number of steps, at least 1.
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`, above 0.
        max_grad_norm: Norm that each record's gradient is clipped to, above 0. Not 1 by default: at 1 a noise that
            forgets to scale with it looks right.
        delta: In (0, 1).

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> Claim(steps=1).sampling_probability
        0.5
    """

    records: int = 64
    expected_batch_size: int = 32
    steps: int = 1
    noise_multiplier: float = 4.0
    max_grad_norm: float = 3.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not 1 <= self.expected_batch_size <= self.records:
            raise ValueError(
                f"expected batch size is {self.expected_batch_size}; it must lie in 1..{self.records}, the records"
            )
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        for name in ("noise_multiplier", "max_grad_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must lie in (0, 1), for example 1e-5")

    @property
    def sampling_probability(self) -> float:
        """Chance with which each record is in a lot."""
        return self.expected_batch_size / self.records

    @property
    def epsilon(self) -> float:
        """What the run costs by its accountant, in nats at `delta`, for one record added or removed."""
        return _epsilon(self.sampling_probability, self.steps, self.noise_multiplier, self.delta)

    def implied(
        self, excess: float, *, confidence: float, method: str, ceiling: float = float("inf"), assumption: str = ""
    ) -> EpsilonBound:
        """Return what the run costs if a record moves the sum `excess` times as far, against its noise, as priced.

        Args:
            excess: Shown ratio of sensitivity to noise over the priced one, at least 0; infinite without noise.
            confidence: Probability in (0, 1) that the truth is at least `excess`.
            method: Who showed it.
            ceiling: The largest `excess` that the same trials could have shown.
            assumption: What else must hold.

        Returns:
            A bound that takes sampling rate, number of steps and sampler on trust.
        """
        trusted = "The sampling rate, the number of steps and the sampler are as priced."
        return EpsilonBound(
            lower=self._cost(excess),
            delta=self.delta,
            neighboring=Neighboring.ADD_REMOVE,
            unit=Unit.RECORD,
            confidence=confidence,
            method=method,
            kind=BoundKind.IMPLIED,
            assumptions=(trusted, assumption) if assumption else (trusted,),
            ceiling=self._cost(max(ceiling, excess)),
        )

    def _cost(self, excess: float) -> float:
        if excess <= 0:
            return 0.0
        if excess == float("inf"):
            return excess
        noise = max(self.noise_multiplier / excess, _LEAST_NOISE)
        return _epsilon(self.sampling_probability, self.steps, noise, self.delta)


@functools.lru_cache(maxsize=256)
def _epsilon(sampling_probability: float, steps: int, noise_multiplier: float, delta: float) -> float:
    event: Any = dp_accounting.PoissonSampledDpEvent(
        sampling_probability, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    found = account(dp_accounting.SelfComposedDpEvent(event, steps), delta=delta)
    assert isinstance(found, Guarantee)  # every accountant knows this mechanism
    return found.epsilon
