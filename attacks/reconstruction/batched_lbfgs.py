"""L-BFGS on many problems at once: every row has its own curvature, its own step and its own end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_HISTORY = 300  # all of a usual run: forgetting costs these problems tens of decibels
_SUFFICIENT, _SHRINK, _TRIES = 1e-4, 0.5, 20

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Minimum:
    """Where the rows ended.

    Attributes:
        x: (V, d).
        value: (V,) of the objective.
        evaluations: (V,) int64, how often each row was evaluated until it ended.
        converged: (V,) bool: below the tolerance, relative to where the row began.
    """

    x: Tensor
    value: Tensor
    evaluations: Tensor
    converged: Tensor


def minimise(objective: Objective, start: Tensor, *, evaluations: int, tolerance: float) -> Minimum:
    """Minimise V functions of d variables side by side.

    Args:
        objective: (V, d) -> values (V,) and gradients (V, d); rows do not depend on each other.
        start: (V, d).
        evaluations: Most evaluations of a row, at least 1.
        tolerance: A row ends when its value is below this share of its first value.

    Returns:
        The best point of each row that was met.

    Source: Nocedal 1980, "Updating quasi-Newton matrices with limited storage"; backtracking until Armijo's condition
    holds, and a row whose search fails forgets its curvature.
    """
    x = start.clone()
    value, gradient = objective(x)
    goal = tolerance * value
    used = torch.ones(len(x), dtype=torch.long, device=x.device)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    going = (value > goal) & torch.isfinite(value)
    while bool(going.any()) and int(used[going].min()) < evaluations:
        direction = _direction(gradient, steps, changes)
        slope = (direction * gradient).sum(1)
        uphill = slope >= 0
        direction = torch.where(uphill[:, None], -gradient, direction)
        slope = torch.where(uphill, -(gradient**2).sum(1), slope)
        first = 1 / gradient.abs().sum(1).clamp(min=1e-300)
        size = torch.ones_like(value) if steps else first.clamp(max=1.0)
        new_x, new_value, new_gradient = x, value, gradient
        waiting = going & (used < evaluations)
        for _ in range(_TRIES):
            tried = torch.where(waiting[:, None], x + size[:, None] * direction, new_x)
            tried_value, tried_gradient = objective(tried)
            used = used + waiting
            good = waiting & (tried_value <= value + _SUFFICIENT * size * slope)
            new_x = torch.where(good[:, None], tried, new_x)
            new_value = torch.where(good, tried_value, new_value)
            new_gradient = torch.where(good[:, None], tried_gradient, new_gradient)
            waiting = waiting & ~good & (used < evaluations)
            if not bool(waiting.any()):
                break
            size = torch.where(waiting, size * _SHRINK, size)
        moved = new_x - x
        stuck = going & (moved == 0).all(1)
        if steps:  # without curvature a stuck row tries the gradient once more; with nothing left it ends
            for kept in (*steps, *changes):
                kept[stuck] = 0
            fresh = stuck & ~uphill
        else:
            fresh = torch.zeros_like(stuck)
        steps.append(moved)
        changes.append(new_gradient - gradient)
        del steps[:-_HISTORY], changes[:-_HISTORY]
        x, value, gradient = new_x, new_value, new_gradient
        going = going & (value > goal) & (used < evaluations) & (~stuck | fresh)
    return Minimum(x, value, used, value <= goal)


def _direction(gradient: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """Return minus the inverse curvature times the gradient, by the two loops, each row for itself."""
    q = gradient.clone()
    weights, products = [], []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        product = (s * y).sum(1)
        rho = torch.where(product > 1e-300, 1 / product.clamp(min=1e-300), torch.zeros_like(product))
        alpha = rho * (s * q).sum(1)
        q = q - alpha[:, None] * y
        weights.append(alpha)
        products.append(rho)
    if steps:
        s, y = steps[-1], changes[-1]
        top, bottom = (s * y).sum(1), (y * y).sum(1)
        q = torch.where(top > 0, top / bottom.clamp(min=1e-300), torch.ones_like(top))[:, None] * q
    for s, y, alpha, rho in zip(steps, changes, reversed(weights), reversed(products), strict=True):
        q = q + s * (alpha - rho * (y * q).sum(1))[:, None]
    return -q
