"""Nadam (Dozat 2016) whose smoothing depends on a condition: does the gradient agree with its running mean?"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.updates import Tensors, along

# The momentum is warmed up as beta1 * (1 - 0.5 * 0.96 ** (step * MOMENTUM_DECAY)).
MOMENTUM_DECAY = 4e-3


@dataclass(frozen=True)
class Nadam:
    """Adam with Nesterov's momentum, and more smoothing of tensors whose gradient opposes its running mean.

    Without `smoothing` it takes the steps of `torch.optim.NAdam`. With it, a parameter tensor whose gradient has a
    negative inner product with its first moment is averaged at this step with decay `smoothing` in place of `beta1`:
    a draw that the noise has turned round moves the mean less. The condition reads the released gradient and the
    moments of released gradients, nothing else, so under a scheme that adds noise it is post-processing.

    Attributes:
        smoothing: Decay of the first moment where the condition holds, in [beta1, 1); None is off.
        beta1: Decay of the first moment otherwise, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        stabilizer: Added to the root of the second moment, above 0.
        weight_decay: L2 penalty added to the gradient, at least 0.

    Raises:
        ValueError: If a value is out of range.

    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", in the convention of `torch.optim.NAdam`; the
    condition is ours, since the text that asks for one (scheme `adaptive_clipping`) does not say which.
    """

    smoothing: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    stabilizer: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must be in [0, 1)")
        if self.smoothing is not None and not self.beta1 <= self.smoothing < 1:
            raise ValueError(
                f"smoothing is {self.smoothing}; it must be in [{self.beta1}, 1), from beta1 up, or None to be off"
            )
        if not (self.stabilizer > 0 and math.isfinite(self.stabilizer)):
            raise ValueError(f"stabilizer is {self.stabilizer}; it must be above 0 and finite")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0 and finite")

    def initial(self, parameters: Tensors) -> Tensors:
        """Return the steps taken per model and, of every parameter, both moments and the product of the momenta."""
        first = next(iter(parameters.values()))
        state = {"steps": torch.zeros(len(first), dtype=first.dtype, device=first.device)}
        for name, parameter in parameters.items():
            state[f"first.{name}"] = torch.zeros_like(parameter)
            state[f"second.{name}"] = torch.zeros_like(parameter)
            state[f"product.{name}"] = torch.ones_like(state["steps"])
        return state

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors, rate: Tensor) -> tuple[Tensors, Tensors]:
        """Return parameters and state after one step."""
        steps = state["steps"] + 1
        moved: Tensors = {}
        after: Tensors = {"steps": steps}
        correction = 1 - self.beta2**steps
        now, ahead = (1 - 0.5 * 0.96 ** (count * MOMENTUM_DECAY) for count in (steps, steps + 1))
        for name, parameter in parameters.items():
            gradient = gradients[name]
            if self.weight_decay:
                gradient = gradient + self.weight_decay * parameter
            decay = self._decay(gradient, state[f"first.{name}"])
            kept = along(decay, parameter)
            after[f"first.{name}"] = first = kept * state[f"first.{name}"] + (1 - kept) * gradient
            after[f"second.{name}"] = second = (
                self.beta2 * state[f"second.{name}"] + (1 - self.beta2) * gradient.square()
            )
            after[f"product.{name}"] = product = state[f"product.{name}"] * decay * now
            spread = (second / along(correction, second)).sqrt() + self.stabilizer
            of_gradient = rate * (1 - decay * now) / (1 - product)
            of_mean = rate * decay * ahead / (1 - product * decay * ahead)
            direction = along(of_gradient, gradient) * gradient + along(of_mean, first) * first
            moved[name] = parameter - direction / spread
        return moved, after

    def _decay(self, gradient: Tensor, first: Tensor) -> Tensor:
        """Return the decay (K,) of one parameter's first moment in every model."""
        usual = gradient.new_full((len(gradient),), self.beta1)
        if self.smoothing is None:
            return usual
        opposed = (gradient * first).reshape(len(gradient), -1).sum(1) < 0
        return torch.where(opposed, self.smoothing, usual)
