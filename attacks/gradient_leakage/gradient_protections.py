"""What may be done to a gradient before it is shared: scaled down, noised, cut; each victim's by itself."""

import torch
from torch import Tensor

from defenses.updates import Tensors


def clipped(gradients: Tensors, *, max_norm: float) -> Tensors:
    """Scale each victim's gradient down to at most this L2 norm."""
    square = sum(value.flatten(1).square().sum(1) for value in gradients.values())
    factor = (max_norm / torch.as_tensor(square).sqrt()).clamp(max=1.0)
    return {name: value * factor.reshape(-1, *[1] * (value.ndim - 1)) for name, value in gradients.items()}


def noised(gradients: Tensors, *, std: float, generator: torch.Generator, laplace: bool = False) -> Tensors:
    """Add independent noise of this standard deviation to each number, Gaussian or Laplace, drawn on the CPU."""

    def draw(value: Tensor) -> Tensor:
        if not laplace:
            return std * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        uniform = torch.rand(value.shape, generator=generator, dtype=value.dtype) - 0.5
        return -std / 2**0.5 * uniform.sign() * torch.log1p(-2 * uniform.abs())

    return {name: value + draw(value).to(value.device) for name, value in gradients.items()}


def sparsified(gradients: Tensors, *, kept: float) -> Tensors:
    """Keep this share of each victim's numbers, those that are largest in size over all parameters; zero the others."""
    sizes = torch.cat([value.flatten(1).abs() for value in gradients.values()], dim=1)
    count = max(1, round(kept * sizes.shape[1]))
    least = sizes.topk(count, dim=1).values[:, -1]
    return {
        name: torch.where(value.abs() >= least.reshape(-1, *[1] * (value.ndim - 1)), value, 0)
        for name, value in gradients.items()
    }
