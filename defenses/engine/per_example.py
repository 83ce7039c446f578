"""Weighted sums of per-example gradients in one forward and one backward pass over the whole lot.

The network runs once on the lot. Hooks keep what goes into every layer with parameters, and the gradient of the summed
loss is taken with respect to what comes out of it; since no layer mixes examples, row i of that is example i's own.
From the two, `defenses.engine.layers` gives each example's norm, the rule turns norms into weights, and the same two
give the weighted sum ("book-keeping", Bu et al. 2022, "Differentially Private Optimization on Large Model at Small
Cost"). A network that cannot be taken apart like this falls back to `vmap(grad)`, which materialises every gradient.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses.compiled_functions import first_line, say_once
from defenses.engine.layers import Materialised, PerExample, rule_of
from defenses.gradients import GradientRule
from defenses.records import Shape
from defenses.updates import Tensors


class PerExampleGradients:
    """Per-example gradients of one network under one rule.

    Args:
        module: The network; its parameters' values are not used. It gets hooks, so it must be the engine's own copy.
        rule: Turns norms into weights.
        shape: Shape of one record.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
    """

    def __init__(self, module: nn.Module, rule: GradientRule, shape: Shape, *, label_smoothing: float = 0.0) -> None:
        self.module, self.rule = module, rule
        self._loss = functools.partial(F.cross_entropy, label_smoothing=label_smoothing)
        self.names = [name for name, _ in module.named_parameters()]
        self.groups = rule.groups(self.names)
        self._mapped = True  # until the network is seen not to map over examples
        self._record: Tensors | None = None  # inputs of the layers, while a forward pass is recorded
        self._taps: Tensors = {}  # zeros added to the outputs of the layers, to differentiate by
        self._shapes: dict[str, torch.Size] = {}  # of the layers' outputs
        self._layers = {
            path: layer
            for path, layer in module.named_modules()
            if next(layer.parameters(recurse=False), None) is not None
        }
        self.closed_form = self._take_apart(shape)

    def sums(
        self, parameters: Tensors, x: Tensor, y: Tensor, mask: Tensor, state: Tensors, *, careful: bool = False
    ) -> tuple[Tensors, Tensor, Tensor]:
        """Return weighted sums, summed statistics (S,) and whether all norms were finite, for one model and lot.

        Args:
            parameters: name -> (*shape).
            x: (B, *shape) records.
            y: (B,) labels.
            mask: (B,) bool, the rows that are real.
            state: The rule's state.
            careful: Drop examples whose norm is not finite exactly; without it they would turn sums into NaN.
        """
        examples = self._split(parameters, x, y)
        norms = self._norms(examples)
        weights, statistics = self.rule.factors(norms, y, mask, state)
        finite = norms.isfinite().all(1)
        if careful:
            examples = {name: entry.only(finite) for name, entry in examples.items()}
        gradients = {
            name: examples[name].weighted(weights[:, group])
            for name, group in zip(self.names, self.groups, strict=True)
        }
        return gradients, statistics.sum(0), finite.all()

    def norms(self, parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Return the norm of each example's gradient in each group of parameters, (B, G), in the rule's order."""
        return self._norms(self._split(parameters, x, y))

    def numbers(self, parameters: Tensors, x: Tensor, y: Tensor) -> tuple[int, int]:
        """Return the largest and the total count of numbers that one example's gradients take."""
        sizes = [entry.numbers for entry in self._split(parameters, x, y).values()]
        if self.closed_form:
            sizes += [shape[1:].numel() for shape in self._shapes.values()]
        return max(sizes), sum(sizes)

    def _norms(self, examples: Mapping[str, PerExample]) -> Tensor:
        order = self.rule.order
        totals: list[Tensor | None] = [None] * (max(self.groups) + 1)
        for name, group in zip(self.names, self.groups, strict=True):
            part, before = examples[name].power(order), totals[group]
            totals[group] = part if before is None else before + part
        stacked = torch.stack([total for total in totals if total is not None], dim=-1)
        return stacked.sqrt() if order == 2 else stacked

    def _split(self, parameters: Tensors, x: Tensor, y: Tensor) -> dict[str, PerExample]:
        return self._by_layer(parameters, x, y) if self.closed_form else self._by_example(parameters, x, y)

    def _by_example(self, parameters: Tensors, x: Tensor, y: Tensor) -> dict[str, PerExample]:
        def loss(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return self._loss(functional_call(self.module, parameters, (x[None],)), y[None])

        def one_by_one() -> Tensors:
            each = [grad(loss)(parameters, *one) for one in zip(x, y, strict=True)]
            return {name: torch.stack([one[name] for one in each]) for name in parameters}

        if not self._mapped:
            gradients = one_by_one()
        else:
            try:
                gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                gradients = one_by_one()
                self._mapped = False
                say_once(f"a network cannot be mapped over examples, which are taken one by one: {first_line(error)}")
        return {name: Materialised(value) for name, value in gradients.items()}

    def _by_layer(self, parameters: Tensors, x: Tensor, y: Tensor) -> dict[str, PerExample]:
        def loss(taps: Tensors) -> tuple[Tensor, Tensors]:
            with self._recording(taps) as record:
                logits = functional_call(self.module, parameters, (x,))
            return self._loss(logits, y, reduction="sum"), dict(record)

        taps = {path: x.new_zeros((len(x), *shape[1:])) for path, shape in self._shapes.items()}
        returned, inputs = grad(loss, has_aux=True)(taps)
        found: dict[str, PerExample] = {}
        for path, layer in self._layers.items():
            rule = rule_of(layer)
            assert rule is not None
            for name, entry in rule(layer, inputs[path], returned[path], self.rule.order).items():
                found[f"{path}.{name}" if path else name] = entry
        return found

    def _take_apart(self, shape: Shape) -> bool:
        """Hook every layer with parameters and try the closed form on two records; False means it cannot be had."""
        odd = sorted({type(layer).__name__ for layer in self._layers.values() if rule_of(layer) is None})
        if odd:
            return self._give_up(f"no closed form is known for {', '.join(odd)}")
        hooks = [layer.register_forward_hook(self._hook(path)) for path, layer in self._layers.items()]
        try:
            self._try_out(shape)
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            for hook in hooks:
                hook.remove()
            return self._give_up(str(error))
        return True

    def _try_out(self, shape: Shape) -> None:
        parameters = {name: value.detach() for name, value in self.module.named_parameters()}
        like = next(iter(parameters.values()))
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(like)
        y = torch.zeros(2, dtype=torch.long, device=like.device)
        with torch.no_grad(), self._recording({}):
            self.module(x)
        theirs, ours = self._by_example(parameters, x, y), self._by_layer(parameters, x, y)
        weights, order = torch.tensor([0.25, 0.5]).to(like), self.rule.order
        for name, entry in theirs.items():
            for expected, found in (
                (entry.weighted(weights), ours[name].weighted(weights)),
                (entry.power(order), ours[name].power(order)),
            ):
                scale = 1e-4 * float(expected.abs().max()) + 1e-12
                if not torch.allclose(found, expected, rtol=1e-3, atol=scale):
                    raise ValueError(f"the closed form for {name!r} differs from its gradient")

    def _give_up(self, reason: str) -> bool:
        say_once(f"per-example gradients will be materialised, which is slower: {reason}")
        return False

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._record is None:
                return None
            if path in self._record:
                raise RuntimeError(f"layer {path!r} is used more than once")
            self._record[path] = arguments[0]
            self._shapes[path] = output.shape
            return output + self._taps[path] if self._taps else None

        return hook

    @contextmanager
    def _recording(self, taps: Tensors) -> Iterator[Tensors]:
        self._record, self._taps = {}, taps
        try:
            yield self._record
        finally:
            self._record, self._taps = None, {}
