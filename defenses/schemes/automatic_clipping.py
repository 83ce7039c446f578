"""Automatic clipping: every gradient is scaled to nearly the same norm, so there is no threshold to choose."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.gradients import ClippedGaussian
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import Tensors


@dataclass(frozen=True)
class NormalizedGaussian(ClippedGaussian):
    """Scale each example's gradient g to C g / (|g| + gamma), shorter than C, and add Gaussian noise to the sum.

    Attributes:
        max_grad_norm: C, above 0.
        noise_multiplier: Standard deviation of the noise over C, at least 0.
        stability: gamma, above 0: without it a gradient of length 0 would have no direction, and shorter ones would
            weigh as much as the longest.

    Raises:
        ValueError: If a value is out of range.
    """

    stability: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.stability > 0 and math.isfinite(self.stability)):
            raise ValueError(f"stability is {self.stability}; it must be a positive number")

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return C / (norm + gamma) for real examples, 0 for padding and where the norm is not finite."""
        weights = self.max_grad_norm / (norms + self.stability)
        weights = torch.where(torch.isfinite(norms), weights, torch.zeros_like(norms))
        return weights * mask[:, None].to(norms.dtype), norms.new_zeros((len(norms), 0))


@dataclass(frozen=True, kw_only=True)
class AutomaticClipping(DPSGD):
    """DP-SGD whose gradients are normalised in place of being clipped; the price is that of DP-SGD.

    The mode of the papers' schemes is missing here: what the text says is what it guarantees.

    Attributes:
        epsilon: As in `DPSGD`: give it or the noise.
        noise_multiplier: As in `DPSGD`.
        max_grad_norm: Length that gradients are scaled to. It only scales the learning rate (with SGD), so leave it.
        delta: As in `DPSGD`.
        stability: gamma, above 0, in the units of a gradient's norm.

    Raises:
        ValueError: If a value is out of range.

    Source: Bu, Wang, Zha and Karypis 2022, "Automatic Clipping: Differentially Private Deep Learning Made Easier and
    Stronger" (AUTO-S, with their gamma of 0.01).
    """

    stability: float = 0.01

    name = "automatic_clipping"
    title = "automatic clipping"
    paper = "Bu et al. 2022, Automatic Clipping"
    example = {"noise_multiplier": 1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        NormalizedGaussian(self.max_grad_norm, self.noise_multiplier or 0.0, self.stability)

    def gradient(self, lots: Lots) -> NormalizedGaussian:
        """Return the normalising rule with this run's noise."""
        return NormalizedGaussian(self.max_grad_norm, self.noise(lots), self.stability)
