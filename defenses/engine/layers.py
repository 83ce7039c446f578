"""Per-example gradients of one layer from what went in and what came back, without a second pass over the network.

A layer that is linear in its weight has the per-example gradient  sum over positions t of  b_t a_t^T,  where a_t (d)
went in at position t and b_t (p) is the gradient that came back. A fully connected layer has one position, a
convolution one per output pixel. From the factors, both the norm and any weighted sum over a lot can be had in several
ways.

Which way is the cheapest: for one position the norm is |a| |b| and the sum is one matrix product, so nothing is ever
materialised. For T positions the gradient itself costs T d p products, about what the plain backward pass spends on
the weight anyway, and d p numbers per example that are written once and read twice; the Gram matrices (Goodfellow 2015;
Bu et al. 2022, "ghost norm") cost T^2 (d + p) products and T d numbers instead. Moving a number costs about
`PRODUCTS_PER_NUMBER` products, so Gram matrices are taken where  T^2 (d + p) / that  + 2 T d  <  2 d p.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Measured on two cores with AVX-512, float32: batched products run at about 16 per number moved through memory.
PRODUCTS_PER_NUMBER = 16


class PerExample(Protocol):
    """The gradients of one parameter for each of B examples, in whatever form is cheapest."""

    @property
    def numbers(self) -> int:
        """Numbers held per example beyond the layer's own input and output."""
        ...

    def power(self, order: int) -> Tensor:
        """Return norm ** order of each example's gradient (B,), for order 1 or 2."""
        ...

    def weighted(self, weights: Tensor) -> Tensor:
        """Return the sum over examples of weight (B,) times gradient, in the parameter's shape."""
        ...

    def only(self, kept: Tensor) -> "PerExample":
        """Return the same with exact zeros for the examples that are not kept (B,) bool, whatever they held."""
        ...


def _zeroed(value: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept.reshape(-1, *[1] * (value.dim() - 1)), value, torch.zeros_like(value))


class Materialised:
    """The gradients themselves, (B, *shape)."""

    def __init__(self, gradients: Tensor) -> None:
        self.gradients = gradients

    @property
    def numbers(self) -> int:
        """The size of the parameter."""
        return self.gradients[0].numel()

    def power(self, order: int) -> Tensor:
        """Sum over all coordinates."""
        flat = self.gradients.flatten(1)
        return flat.abs().sum(1) if order == 1 else flat.square().sum(1)

    def weighted(self, weights: Tensor) -> Tensor:
        """One vector-matrix product."""
        return (weights @ self.gradients.flatten(1)).reshape(self.gradients.shape[1:])

    def only(self, kept: Tensor) -> "Materialised":
        """Zero the gradients."""
        return Materialised(_zeroed(self.gradients, kept))


class Factored:
    """Gradients kept as factors: inputs a (B, T, d) and returned gradients b (B, T, p); each is b^T a, as `shape`."""

    def __init__(self, inputs: Tensor, returned: Tensor, shape: torch.Size) -> None:
        self.inputs, self.returned, self.shape = inputs, returned, shape

    @property
    def numbers(self) -> int:
        """The inputs at every position and both Gram matrices."""
        positions = self.inputs.shape[1]
        return self.inputs[0].numel() + (2 * positions**2 if positions > 1 else 0)

    def power(self, order: int) -> Tensor:
        """Product of norms at one position; otherwise the inner product of the two Gram matrices (order 2 alone)."""
        if self.inputs.shape[1] == 1:
            if order == 1:
                return self.inputs[:, 0].abs().sum(1) * self.returned[:, 0].abs().sum(1)
            return self.inputs[:, 0].square().sum(1) * self.returned[:, 0].square().sum(1)
        assert order == 2
        ours = torch.bmm(self.inputs, self.inputs.transpose(1, 2))
        theirs = torch.bmm(self.returned, self.returned.transpose(1, 2))
        return (ours * theirs).sum((1, 2)).clamp(min=0)  # rounding may leave it below zero

    def weighted(self, weights: Tensor) -> Tensor:
        """One matrix product over all examples and positions."""
        scaled = self.returned * weights[:, None, None]
        return (scaled.flatten(0, 1).T @ self.inputs.flatten(0, 1)).reshape(self.shape)

    def only(self, kept: Tensor) -> "Factored":
        """Zero both factors: zero times infinity would not be zero."""
        return Factored(_zeroed(self.inputs, kept), _zeroed(self.returned, kept), self.shape)


Found = dict[str, PerExample]
Rule = Callable[[nn.Module, Tensor, Tensor, int], Found]


def _linear(layer: nn.Module, inputs: Tensor, returned: Tensor, order: int) -> Found:
    assert isinstance(layer, nn.Linear)
    a, b = inputs.flatten(1, -2) if inputs.dim() > 2 else inputs[:, None], returned
    b = b.flatten(1, -2) if b.dim() > 2 else b[:, None]
    shape = layer.weight.shape
    factored = a.shape[1] == 1 or (order == 2 and gram_is_cheaper(a.shape[1], a.shape[2], b.shape[2]))
    weight: PerExample = Factored(a, b, shape) if factored else Materialised(torch.bmm(b.transpose(1, 2), a))
    return {"weight": weight} if layer.bias is None else {"weight": weight, "bias": Materialised(b.sum(1))}


def _convolution(layer: nn.Module, inputs: Tensor, returned: Tensor, order: int) -> Found:
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight
    positions, depth, width = returned[0, 0].numel(), weight[0].numel(), weight.shape[0]
    simple = layer.groups == 1
    found: Found = {}
    geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    if simple and order == 2 and gram_is_cheaper(positions, depth, width):
        patches = F.unfold(inputs, *geometry)  # type: ignore[arg-type]  # padding is a pair of numbers here
        found["weight"] = Factored(patches.transpose(1, 2), returned.flatten(2).transpose(1, 2), weight.shape)
    elif simple and inputs.device.type == "cuda":  # thousands of small groups have no fast kernel there
        patches = F.unfold(inputs, *geometry)  # type: ignore[arg-type]
        product = torch.bmm(returned.flatten(2), patches.transpose(1, 2))
        found["weight"] = Materialised(product.reshape(-1, *weight.shape))
    else:
        sizes = (list(weight.shape), list(layer.stride), list(layer.padding), list(layer.dilation))
        found["weight"] = Materialised(_weight_gradients(returned, inputs, *sizes, layer.groups))
    if layer.bias is not None:
        found["bias"] = Materialised(returned.flatten(2).sum(2))
    return found


@torch.library.custom_op("auditor::convolution_weight_gradients", mutates_args=())
def _weight_gradients(
    returned: Tensor,
    inputs: Tensor,
    shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Per-example gradients (B, *shape) of a convolution's weight, as one weight backward with a group per example.

    That is the cost of a plain backward pass. An operation of its own, because a compiler would give the thousands of
    channels a layout that the kernel is slow with, and mapping it over models would make groups of groups.
    """
    examples = len(inputs)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        returned.reshape(1, -1, *returned.shape[2:]),
        inputs.reshape(1, -1, *inputs.shape[2:]),
        inputs.new_empty((examples * shape[0], *shape[1:])),  # a weight backward looks at its shape alone
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        examples * groups,
        [False, True, False],
    )[1]
    return gradient.reshape(examples, *shape)


@_weight_gradients.register_fake
def _(returned: Tensor, inputs: Tensor, shape: list[int], *_: object) -> Tensor:
    return inputs.new_empty((len(inputs), *shape))


@_weight_gradients.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, ...], returned: Tensor, inputs: Tensor, *geometry: Any
) -> tuple[Tensor, int]:
    """Examples of different models are examples: no weight enters."""
    both = [
        value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip((returned, inputs), in_dims, strict=False)
    ]
    found = _weight_gradients(both[0].flatten(0, 1), both[1].flatten(0, 1), *geometry)
    return found.unflatten(0, (info.batch_size, -1)), 0


def _group_norm(layer: nn.Module, inputs: Tensor, returned: Tensor, order: int) -> Found:
    assert isinstance(layer, nn.GroupNorm)
    normal = F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    by_channel = (returned * normal).flatten(2).sum(2) if returned.dim() > 2 else returned * normal
    total = returned.flatten(2).sum(2) if returned.dim() > 2 else returned
    return {"weight": Materialised(by_channel), "bias": Materialised(total)}


def _layer_norm(layer: nn.Module, inputs: Tensor, returned: Tensor, order: int) -> Found:
    assert isinstance(layer, nn.LayerNorm)
    shape = tuple(layer.normalized_shape)
    by_position = (returned * F.layer_norm(inputs, shape, eps=layer.eps)).reshape(len(inputs), -1, *shape)
    found: Found = {"weight": Materialised(by_position.sum(1))}
    if layer.bias is not None:
        found["bias"] = Materialised(returned.reshape(len(inputs), -1, *shape).sum(1))
    return found


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}


def rule_of(layer: nn.Module) -> Rule | None:
    """Return how a layer's per-example gradients are had from its input and output, or None if that is not known.

    Exact types only: a subclass may compute something else.
    """
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return None
    return RULES.get(type(layer))


def gram_is_cheaper(positions: int, depth: int, width: int) -> bool:
    """Return whether Gram matrices beat materialised gradients; see the head of this file."""
    gram = positions**2 * (depth + width) / PRODUCTS_PER_NUMBER + 2 * positions * depth
    return gram < 2 * depth * width
