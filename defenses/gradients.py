"""Per-example gradient rules: norms in, weights out, noise on the sum.

A rule never sees a gradient, only norms, so the engine may compute them in whatever way is cheapest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from defenses.randomness import Noise
from defenses.updates import Tensors


class GradientRule(Protocol):
    """What happens to per-example gradients of one model; the engine maps it over the stacked models.

    Shapes are those of one model: B records in a lot, G groups of parameters, S bounded statistics.
    """

    @property
    def order(self) -> int:
        """Order of the norm: 1 or 2."""
        ...

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the group 0 .. G-1 of each parameter."""
        ...

    def initial(self) -> Tensors:
        """Return the state before the first step."""
        ...

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return weights (B, G) for the per-example gradients, and bounded statistics (B, S); pure."""
        ...

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Return the noisy sums and the next state; called once per logical step, on one model's sums."""
        ...


@runtime_checkable
class LotRule(GradientRule, Protocol):
    """A rule that must see the norms of the whole lot before it weighs any: the lot is then passed twice."""

    def prepare_step(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors, noise: Noise) -> Tensors:
        """Return the state for this step's `factors` and `release`, from the norms (B, G) and labels of a model's lot.

        Rows that are not real (mask) hold anything. What is chosen here looks at private norms: `event` must price it.
        """
        ...


@runtime_checkable
class MovingThreshold(GradientRule, Protocol):
    """A rule whose one clipping threshold changes from step to step, for who tests its steps."""

    def threshold(self, state: Tensors) -> Tensor:
        """Return the threshold in force, 0-dimensional, in the state that `factors` and `release` are given."""
        ...


@dataclass(frozen=True)
class Measures:
    """What a rule may look at between epochs; each is computed when it is asked for.

    Attributes:
        epoch: Epochs done.
        right_on_members: () -> (n,) bool, which of its own training records the model gets right. They are private.
        right_on_public: () -> (p,) bool, the same on public records; empty where the job has none.
    """

    epoch: int
    right_on_members: Callable[[], Tensor]
    right_on_public: Callable[[], Tensor]


@runtime_checkable
class ReviewedRule(GradientRule, Protocol):
    """A rule whose schedule reacts to how the model does, or that stops it."""

    def review(self, state: Tensors, measures: Measures, noise: Noise) -> Tensors:
        """Return the state for the next epoch; called after every epoch. `event` must price what was looked at."""
        ...

    def done(self, state: Tensors) -> bool:
        """Return whether the model takes no further step."""
        ...


@dataclass(frozen=True)
class ClippedGaussian:
    """Clip each example's whole gradient in L2 and add Gaussian noise to the sum (Abadi et al. 2016, Algorithm 1).

    Attributes:
        max_grad_norm: Clipping threshold C, above 0.
        noise_multiplier: Standard deviation of the noise over C, at least 0.

    Raises:
        ValueError: If a value is out of range.
    """

    max_grad_norm: float
    noise_multiplier: float

    order = 2

    def __post_init__(self) -> None:
        if not (self.max_grad_norm > 0 and math.isfinite(self.max_grad_norm)):
            raise ValueError(f"max_grad_norm is {self.max_grad_norm}; it must be a positive number")
        if not (self.noise_multiplier >= 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}; it must be at least 0 and finite")

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Put every parameter in one group."""
        return (0,) * len(names)

    def initial(self) -> Tensors:
        """Return no state."""
        return {}

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return min(1, C / norm) for real examples and 0 for padding.

        A gradient whose norm is not finite gets weight 0: no multiple of it has a bounded norm.
        """
        weights = torch.where(norms > self.max_grad_norm, self.max_grad_norm / norms, torch.ones_like(norms))
        weights = torch.where(torch.isfinite(norms), weights, torch.zeros_like(norms))
        return weights * mask[:, None].to(norms.dtype), norms.new_zeros((len(norms), 0))

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Add noise of standard deviation C * noise_multiplier to every coordinate."""
        scale = self.max_grad_norm * self.noise_multiplier
        if scale == 0:
            return sums, state
        drawn = noise.normal(sums)
        return {name: value.add(drawn[name], alpha=scale) for name, value in sums.items()}, state
