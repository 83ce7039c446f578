"""BatchNorm as a pure layer: statistics of the real rows of a lot, handed out instead of written into the module.

It mixes the records of a lot, so it has no place under a per-example rule; models without protection may use it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from defenses.errors import TrainingError
from defenses.updates import Tensors

Moments = dict[str, tuple[Tensor, Tensor]]
KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class LotNorm(nn.Module):
    """Normalise by the mean and variance of a lot, padding left out; stands in for a BatchNorm layer in training.

    Args:
        layer: The layer that it stands in for; its parameters are taken over.
    """

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        if layer.momentum is None or not layer.track_running_stats:
            raise TrainingError(
                "a BatchNorm layer has no momentum or no running statistics; give it a momentum (0.1 is usual) and "
                "track_running_stats=True"
            )
        self.weight, self.bias, self.eps, self.momentum = layer.weight, layer.bias, layer.eps, layer.momentum
        self.mask: Tensor | None = None
        self.moments: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, channels, ...) and keep the mean and the unbiased variance of the lot in `moments`."""
        assert self.mask is not None
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        real = self.mask.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        count = real.sum().clamp(min=1) * x[0, 0].numel()
        mean = (x * real).sum(axes) / count
        centred = x - mean.view(shape)
        squares = (centred.square() * real).sum(axes)
        self.moments = mean, squares / (count - 1).clamp(min=1)
        normal = centred * (squares / count + self.eps).rsqrt().view(shape)
        if self.weight is None:
            return normal
        return normal * self.weight.view(shape) + self.bias.view(shape)


def stand_in(module: nn.Module) -> dict[str, LotNorm]:
    """Replace every BatchNorm layer inside a module and return the stand-ins by path."""
    found = {path: LotNorm(layer) for path, layer in module.named_modules() if isinstance(layer, KINDS)}
    for path, layer in found.items():
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, layer)
    return found


def moments(layers: Mapping[str, LotNorm]) -> Moments:
    """Return what the layers saw in the forward pass just done; a layer that was not used is left out."""
    seen = {path: layer.moments for path, layer in layers.items() if layer.moments is not None}
    for layer in layers.values():
        layer.moments = None
    return seen


def updated(buffers: Tensors, moments: Moments, layers: Mapping[str, LotNorm]) -> Tensors:
    """Return the running statistics of one model after a lot, as PyTorch would update them.

    Args:
        buffers: Running statistics by name.
        moments: Mean and variance of the lot, by path of the layer.
        layers: The stand-ins, by path.
    """
    after = dict(buffers)
    for path, (mean, variance) in moments.items():
        share = layers[path].momentum
        for name, fresh in (("running_mean", mean), ("running_var", variance)):
            after[f"{path}.{name}"] = torch.lerp(buffers[f"{path}.{name}"], fresh, share)
        after[f"{path}.num_batches_tracked"] = buffers[f"{path}.num_batches_tracked"] + 1
    return after
