"""The layers with parameters that a record passes first and last."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.errors import NotApplicableError


@dataclass(frozen=True)
class Passed:
    """A layer with parameters of its own, and what went through it.

    Attributes:
        path: Of the module inside the network, "" for the network itself.
        layer: The module.
        taken: What it was given, (n, ...).
        made: What it returned, (n, ...).
    """

    path: str
    layer: nn.Module
    taken: Tensor
    made: Tensor

    def name(self, parameter: str) -> str:
        """Return the name of one of its parameters inside the network."""
        return f"{self.path}.{parameter}" if self.path else parameter


def layers_in_order(model: nn.Module, x: Tensor) -> list[Passed]:
    """Return the layers with parameters in the order in which records pass them.

    Args:
        model: Gets hooks for the time of one forward pass.
        x: (n, *shape) records.

    Raises:
        NotApplicableError: If there is none.
    """
    found: list[Passed] = []
    hooks = []
    for path, layer in model.named_modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue

        def hook(layer: nn.Module, taken: tuple[Tensor, ...], made: Tensor, path: str = path) -> None:
            found.append(Passed(path, layer, taken[0].detach(), made.detach()))

        hooks.append(layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            model(x)
    finally:
        for one in hooks:
            one.remove()
    if not found:
        raise NotApplicableError("needs a network with parameters, and this one has none")
    return found
