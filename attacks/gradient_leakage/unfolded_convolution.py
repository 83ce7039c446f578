"""Convolutions as products of matrices, which is how many victims' gradients of gradients are cheapest on a CPU."""

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def unfolded(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose plain two-dimensional convolutions are products of matrices.

    Per-victim gradients of a convolution are a convolution for each victim, one after another; of a product they are
    one batched product. Names and values of parameters stay as they were, and so do outputs, up to rounding.
    Convolutions with groups, or with padding other than zeros, are left alone.

    Args:
        model: Any network; it is not changed.
    """
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if type(layer) is nn.Conv2d and layer.groups == 1 and _pads_zeros(layer):
            layer.__class__ = _Unfolded
    return copied


def _pads_zeros(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)  # a text says how much without a number


class _Unfolded(nn.Conv2d):
    """A convolution by unfolding what it looks at."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns of x (n, channels, height, width)."""
        settings: dict[str, Any] = {
            "kernel_size": self.kernel_size, "dilation": self.dilation, "padding": self.padding, "stride": self.stride
        }  # fmt: skip
        height = _length(x.shape[2], self, 0)
        made: Tensor = self.weight.flatten(1) @ F.unfold(x, **settings)
        if self.bias is not None:
            made = made + self.bias[:, None]
        return made.reshape(*made.shape[:2], height, -1)


def _length(side: int, layer: nn.Conv2d, axis: int) -> int:
    """Return at how many places along an axis a convolution looks at an image of this side."""
    seen = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
    return (side + 2 * int(layer.padding[axis]) - seen) // layer.stride[axis] + 1
