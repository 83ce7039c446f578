"""Public preprocessing that a released model carries in front of its network: standardise, clip, project.

What a scheme fits on its own records or on public ones (means, scales, principal components) belongs to the model from
then on: every query goes through it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from defenses.records import Shape


class InputTransform(nn.Module):
    """The map x -> clip((x - shift) / scale, -bound, bound), then a projection of the flattened record on a basis.

    Args:
        shape: Shape of one record.
        components: Rows of the basis; None leaves the shape as it is.
        bound: Where every standardised feature is clipped; None clips nothing.

    Attributes:
        shift: (*shape), subtracted.
        scale: (*shape), divided by; above 0.
        basis: (components, features), where there is one.
    """

    shift: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(self, shape: Shape, *, components: int | None = None, bound: float | None = None) -> None:
        super().__init__()
        self.bound, self.components = bound, components
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        if components is not None:
            self.register_buffer("basis", torch.zeros(components, int(np.prod(shape))))

    @property
    def output_shape(self) -> Shape:
        """Shape of what one record becomes."""
        return tuple(self.shift.shape) if self.components is None else (self.components,)

    @property
    def options(self) -> dict[str, Any]:
        """What it is built from, beside the shape; JSON-ready."""
        return {"components": self.components, "bound": self.bound}

    def forward(self, x: Tensor) -> Tensor:
        """Map records (n, *shape) to (n, *output_shape)."""
        x = (x - self.shift) / self.scale
        if self.bound is not None:
            x = x.clamp(-self.bound, self.bound)
        return x if self.components is None else x.flatten(1) @ self.basis.T

    def apply_to(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map an array of records."""
        with torch.no_grad():
            found: npt.NDArray[np.float32] = self(torch.from_numpy(np.ascontiguousarray(x))).float().numpy()
        return found


def make_input_transform(
    shift: npt.ArrayLike,
    scale: npt.ArrayLike,
    *,
    shape: Shape,
    basis: npt.ArrayLike | None = None,
    bound: float | None = None,
) -> InputTransform:
    """Return a front with these values.

    Args:
        shift: Broadcasts to the shape of a record.
        scale: Broadcasts to the shape of a record; above 0.
        shape: Shape of one record.
        basis: (components, features) or None.
        bound: Where standardised features are clipped, above 0; None clips nothing.

    Raises:
        ValueError: If a scale or the bound is not above 0, or a value is not finite.
    """
    rows = None if basis is None else np.asarray(basis, dtype=np.float32)
    front = InputTransform(shape, components=None if rows is None else len(rows), bound=bound)
    values = {"shift": np.broadcast_to(shift, shape), "scale": np.broadcast_to(scale, shape)}
    if rows is not None:
        values["basis"] = rows
    for name, value in values.items():
        if not np.isfinite(value).all() or (name == "scale" and not (value > 0).all()):
            raise ValueError(f"{name} of the preprocessing is not finite and, if a scale, above 0; check the records")
        getattr(front, name).copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
    if bound is not None and not bound > 0:
        raise ValueError(f"bound is {bound}; features are clipped to [-bound, bound], so it must be above 0")
    return front


def released_weights(network: Mapping[str, Tensor], fronts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network behind a front, by their names there."""
    return {f"0.{name}": value for name, value in fronts.items()} | {
        f"1.{name}": value for name, value in network.items()
    }
