"""What a participant of a training sends: a gradient, the change after local steps, or what a scheme makes of it."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses.engine.per_example import PerExampleGradients
from defenses.gradients import GradientRule, LotRule
from defenses.randomness import Noise, derive
from defenses.updates import Tensors


def shared_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensors:
    """Return what V victims share: the gradient of the mean cross-entropy over each one's batch.

    Args:
        model: Public; its parameters' type is that of the gradients.
        x: (V, B, *shape).
        y: (V, B) labels.

    Returns:
        name -> (V, *shape of the parameter).
    """
    return local_updates(model, x, y, steps=1, learning_rate=1.0)


def local_updates(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, learning_rate: float) -> Tensors:
    """Return what V victims send after some steps of their own, each over the whole batch of the victim.

    Args:
        model: Public; where everybody starts.
        x: (V, B, *shape).
        y: (V, B) labels.
        steps: At least 1; after one, this is the gradient.
        learning_rate: Of each step, above 0.

    Returns:
        name -> (V, *shape of the parameter): weights before less weights after, over the learning rate.

    Raises:
        ValueError: If steps or learning_rate are out of range.

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data".
    """
    if steps < 1 or not learning_rate > 0:
        raise ValueError(f"steps is {steps}, learning_rate {learning_rate}; give at least 1, and above 0")
    before = {name: value.detach() for name, value in model.named_parameters()}

    def change(x: Tensor, y: Tensor) -> Tensors:
        def loss(parameters: Tensors) -> Tensor:
            return nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)

        return descent(grad(loss), before, steps=steps, learning_rate=learning_rate)

    found: Tensors = vmap(change)(x, y)
    return found


def descent(gradient: Callable[[Tensors], Tensors], start: Tensors, *, steps: int, learning_rate: float) -> Tensors:
    """Return the sum of the gradients met on a path of plain steps: how far it leads, over the learning rate."""
    total = gradient(start)
    for _ in range(steps - 1):
        here = {name: value - learning_rate * total[name] for name, value in start.items()}
        there = gradient(here)
        total = {name: value + there[name] for name, value in total.items()}
    return total


def shared_under(model: nn.Module, x: Tensor, y: Tensor, rule: GradientRule | None, *, seed: int) -> Tensors:
    """Return what V victims share whose messages a scheme's gradient rule protects, each one's batch a lot of its own.

    A message is the engine's step: the weighted sum of per-example gradients, released with noise, over the batch size.

    Args:
        model: Public, without layers that mix examples.
        x: (V, B, *shape).
        y: (V, B) labels.
        rule: Of the scheme, in its initial state for every victim; None shares the plain mean gradient.
        seed: Root of the noise, of which every victim has its own.

    Returns:
        name -> (V, *shape of the parameter).

    Examples:
        >>> from defenses.gradients import ClippedGaussian
        >>> x, y = torch.ones(1, 1, 2), torch.zeros(1, 1, dtype=torch.long)
        >>> sent = shared_under(nn.Linear(2, 2), x, y, ClippedGaussian(0.01, 0.0), seed=0)
        >>> round(float(sum(value.square().sum() for value in sent.values()) ** 0.5), 4)
        0.01
    """
    if rule is None:
        return shared_gradients(model, x, y)
    examples = PerExampleGradients(copy.deepcopy(model), rule, tuple(x.shape[2:]))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    mask, state, sent = torch.ones_like(y[0], dtype=torch.bool), rule.initial(), []
    for victim in range(len(x)):
        if isinstance(rule, LotRule):
            norms, drawn = examples.norms(parameters, x[victim], y[victim]), Noise(seed, "lot", victim, device=x.device)
            state = rule.prepare_step(norms, y[victim], mask, rule.initial(), drawn)
        lot = (parameters, x[victim], y[victim], mask, state)
        sums, statistics, finite = examples.sums(*lot)
        if not bool(finite):
            sums, statistics, _ = examples.sums(*lot, careful=True)
        noise = Noise(seed, "shared", victim, device=x.device)
        released, _ = rule.release(sums, statistics, state, noise)
        sent.append({name: value / x.shape[1] for name, value in released.items()})
    return {name: torch.stack([one[name] for one in sent]) for name in parameters}


def deviation_of_noise(model: nn.Module, x: Tensor, y: Tensor, rule: GradientRule, *, seed: int) -> float:
    """Return the standard deviation of what a rule's noise adds to each coordinate of a message, over all of them.

    It is measured: one message released twice with different noise differs by nothing else.

    Args:
        model: Public.
        x: (V, B, *shape) of any records; the first victim's are used.
        y: (V, B) labels.
        rule: Of the scheme.
        seed: Root of the noise.
    """
    one, other = (shared_under(model, x[:1], y[:1], rule, seed=derive(seed, "twice", k)) for k in range(2))
    gaps = torch.cat([(one[name] - other[name]).flatten() for name in one]).double()
    return float(gaps.square().mean().div(2).sqrt())
