"""What one job computes at every step, as pure functions of stacked tensors; built once, shared by all its stacks."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_leaves, tree_map

from defenses.compiled_functions import CompiledFunction, first_line, say_once
from defenses.defense import Defense
from defenses.engine import batch_norm
from defenses.engine.per_example import PerExampleGradients
from defenses.errors import TrainingError
from defenses.recipe import Recipe
from defenses.records import Shape
from defenses.updates import Tensors


class StepFunctions:
    """The pure functions of a job. All tensors are stacked over K models; indices and masks are (K, B).

    Attributes:
        rule: The scheme's rule for per-example gradients, or None.
        update: The update rule.
        step: Without a rule: (parameters, buffers, update state, rates, x, y, indices, mask, views) -> parameters,
            buffers, update state.
        sums: With a rule: (parameters, x, y, indices, mask, views, rule state) -> weighted sums, summed statistics
            (K, S), whether all norms were finite (K,).
        careful_sums: The same at some cost, with examples dropped whose norm is not finite.
        norms: With a rule: (parameters, x, y, indices, mask, views) -> norms (K, B, G).
        move: With a rule: (parameters, released sums, update state, rates) -> parameters, update state.

    Raises:
        TrainingError: If the network cannot be trained this way.
    """

    def __init__(self, recipe: Recipe, defense: Defense, shape: Shape, classes: int, device: torch.device) -> None:
        self._augmentation = recipe.augmentation
        if recipe.augmentation and len(shape) != 3:
            raise TrainingError(
                f"augmentation moves images (channels, height, width); these records have shape {shape}"
            )
        self.rule, self.update = defense.gradient(recipe.lots), defense.update(recipe)
        self._module = recipe.architecture.build(shape, classes, seed=0, dtype=recipe.precision.dtype).to(device)
        _refuse(self._module, recipe.architecture.name, ruled=self.rule is not None)
        self._norms = batch_norm.stand_in(self._module)
        self._normaliser = recipe.lots.batch_size
        self._smoothing = defense.label_smoothing
        if self.rule is None:
            self._mean_gradients = _over_models(self._mean_gradient, shared=(2, 3))
            self.step = CompiledFunction(self._plain_step, name="the training step")
        else:
            self._examples = PerExampleGradients(self._module, self.rule, shape, label_smoothing=self._smoothing)
            self.sums = CompiledFunction(_over_models(self._sums, shared=(1, 2)), name="the clipped sum")
            careful = functools.partial(self._sums, careful=True)
            self.careful_sums = CompiledFunction(
                _over_models(careful, shared=(1, 2)), name="the clipped sum of a lot with overflow"
            )
            self.move = CompiledFunction(self._move, name="the update")
            self.norms = CompiledFunction(_over_models(self._example_norms, shared=(1, 2)), name="the norms")

    def numbers(self, x: Tensor) -> tuple[int, int]:
        """Return the largest and the total count of numbers that one example's gradient takes; x is one record."""
        parameters = {name: value.detach() for name, value in self._module.named_parameters()}
        return self._examples.numbers(parameters, x, torch.zeros(1, dtype=torch.long, device=x.device))

    def _gather(self, x: Tensor, y: Tensor, indices: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        drawn = x[indices]
        return (self._augmentation.apply(drawn, views) if self._augmentation else drawn), y[indices]

    def _plain_step(
        self, parameters: Tensors, buffers: Tensors, state: Tensors, rates: Tensor, *lot: Tensor
    ) -> tuple[Tensors, Tensors, Tensors]:
        gradients, buffers = self._mean_gradients(parameters, buffers, *lot)
        parameters, state = self.update.step(parameters, gradients, state, rates)
        return parameters, buffers, state

    def _mean_gradient(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor, indices: Tensor, mask: Tensor, views: Tensor
    ) -> tuple[Tensors, Tensors]:
        """Return the gradient of one model's mean loss over its lot, and its running statistics after it."""
        drawn, labels = self._gather(x, y, indices, views)

        def loss(parameters: Tensors) -> tuple[Tensor, batch_norm.Moments]:
            for layer in self._norms.values():
                layer.mask = mask
            logits = functional_call(self._module, parameters, (drawn,))
            losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self._smoothing)
            return (losses * mask).sum() / mask.sum().clamp(min=1), batch_norm.moments(self._norms)

        gradients, moments = grad(loss, has_aux=True)(parameters)
        return gradients, batch_norm.updated(buffers, moments, self._norms)

    def _sums(
        self,
        parameters: Tensors,
        x: Tensor,
        y: Tensor,
        indices: Tensor,
        mask: Tensor,
        views: Tensor,
        state: Tensors,
        *,
        careful: bool = False,
    ) -> tuple[Tensors, Tensor, Tensor]:
        drawn, labels = self._gather(x, y, indices, views)
        return self._examples.sums(parameters, drawn, labels, mask, state, careful=careful)

    def _example_norms(
        self, parameters: Tensors, x: Tensor, y: Tensor, indices: Tensor, mask: Tensor, views: Tensor
    ) -> Tensor:
        return self._examples.norms(parameters, *self._gather(x, y, indices, views))

    def _move(self, parameters: Tensors, released: Tensors, state: Tensors, rates: Tensor) -> tuple[Tensors, Tensors]:
        """Divide by the public normaliser and take the step."""
        gradients = {name: value / self._normaliser for name, value in released.items()}
        return self.update.step(parameters, gradients, state, rates)


def _over_models(function: Callable[..., Any], *, shared: tuple[int, ...]) -> Callable[..., Any]:
    """Lift a function of one model to a stack; arguments at `shared` positions are the same for all models.

    A stack of one is not mapped: batched kernels of one are slower than plain ones.
    """

    def one(k: int, arguments: tuple[Any, ...]) -> Any:
        return function(
            *(
                value if position in shared else tree_map(lambda leaf: leaf[k], value)
                for position, value in enumerate(arguments)
            )
        )

    mapped = True

    def lifted(*arguments: Any) -> Any:
        nonlocal mapped
        first = next(value for position, value in enumerate(arguments) if position not in shared)
        models = len(tree_leaves(first)[0])
        if mapped and models > 1:
            in_dims = tuple(None if position in shared else 0 for position in range(len(arguments)))
            try:
                return vmap(function, in_dims=in_dims)(*arguments)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                mapped = False
                say_once(f"a network cannot be mapped over models, which are taken one by one: {first_line(error)}")
        return tree_map(lambda *leaves: torch.stack(leaves), *(one(k, arguments) for k in range(models)))

    return lifted


def _refuse(module: nn.Module, name: str, *, ruled: bool) -> None:
    """Refuse what a pure step mapped over models cannot train faithfully."""
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and (ruled or type(part) not in batch_norm.KINDS):
            raise TrainingError(
                f"architecture {name!r} has {type(part).__name__} at {path!r}, which mixes the records of a lot: one "
                "record would move every other's gradient; use GroupNorm instead"
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            raise TrainingError(
                f"architecture {name!r} has {type(part).__name__} at {path!r}, whose draws cannot be repeated per "
                "model; set its probability to 0"
            )
        if type(part) not in batch_norm.KINDS and next(part.buffers(recurse=False), None) is not None:
            raise TrainingError(
                f"architecture {name!r} has buffers at {path!r} that training would change; use layers without them"
            )
