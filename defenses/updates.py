"""Update rules: gradient and state to step, elementwise, so that any number of models stack on the leading axis."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class UpdateRule(Protocol):
    """One optimiser as two pure functions over stacked parameters, name -> (K, *shape)."""

    def initial(self, parameters: Tensors) -> Tensors:
        """Return the state before the first step."""
        ...

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors, rate: Tensor) -> tuple[Tensors, Tensors]:
        """Return parameters and state after one step at learning rates `rate` (K,); nothing is changed in place."""
        ...


def along(values: Tensor, like: Tensor) -> Tensor:
    """View per-model values (K,) so that they broadcast over stacked tensors (K, *shape)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with heavy-ball momentum, in the convention of `torch.optim.SGD`.

    Attributes:
        momentum: In [0, 1).
        weight_decay: L2 penalty added to the gradient, at least 0.
        nesterov: Whether to look ahead.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; it must be in [0, 1)")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0")

    def initial(self, parameters: Tensors) -> Tensors:
        """Return one velocity per parameter, or nothing without momentum."""
        return {name: torch.zeros_like(p) for name, p in parameters.items()} if self.momentum else {}

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors, rate: Tensor) -> tuple[Tensors, Tensors]:
        """Return parameters and velocities after one step."""
        moved: Tensors = {}
        velocities: Tensors = {}
        for name, parameter in parameters.items():
            gradient = gradients[name]
            if self.weight_decay:
                gradient = gradient + self.weight_decay * parameter
            if self.momentum:
                velocities[name] = velocity = self.momentum * state[name] + gradient
                gradient = gradient + self.momentum * velocity if self.nesterov else velocity
            moved[name] = parameter - along(rate, parameter) * gradient
        return moved, velocities


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) with bias correction, in the convention of `torch.optim.Adam`.

    Attributes:
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        stabilizer: Added to the root of the second moment, above 0.
        weight_decay: L2 penalty added to the gradient, at least 0.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    stabilizer: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must be in [0, 1)")
        if self.stabilizer <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"stabilizer {self.stabilizer} must be above 0, weight_decay {self.weight_decay} at least 0"
            )

    def initial(self, parameters: Tensors) -> Tensors:
        """Return both moments of every parameter and the number of steps taken, per model."""
        first = next(iter(parameters.values()))
        state = {"steps": torch.zeros(len(first), dtype=first.dtype, device=first.device)}
        for name, parameter in parameters.items():
            state[f"first.{name}"] = torch.zeros_like(parameter)
            state[f"second.{name}"] = torch.zeros_like(parameter)
        return state

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors, rate: Tensor) -> tuple[Tensors, Tensors]:
        """Return parameters and moments after one step."""
        steps = state["steps"] + 1
        moved: Tensors = {}
        after: Tensors = {"steps": steps}
        scale = rate / (1 - self.beta1**steps)
        correction = (1 - self.beta2**steps).sqrt()
        for name, parameter in parameters.items():
            gradient = gradients[name]
            if self.weight_decay:
                gradient = gradient + self.weight_decay * parameter
            after[f"first.{name}"] = first = self.beta1 * state[f"first.{name}"] + (1 - self.beta1) * gradient
            after[f"second.{name}"] = second = (
                self.beta2 * state[f"second.{name}"] + (1 - self.beta2) * gradient.square()
            )
            spread = second.sqrt() / along(correction, second) + self.stabilizer
            moved[name] = parameter - along(scale, parameter) * first / spread
        return moved, after
