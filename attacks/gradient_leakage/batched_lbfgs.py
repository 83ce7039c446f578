"""L-BFGS on many problems at once: every row has its own curvature, its own step and its own end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_HISTORY = 300  # all of a usual run: forgetting costs these problems tens of decibels
_SUFFICIENT, _SHRINK, _TRIES = 1e-4, 0.5, 20
_CROWDED = 0.9  # rows are put together anew when no more than this share of them goes on
_TINY = 1e-300

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
        objective: (k, d) points and (k,) the rows that they are of -> values (k,) and gradients (k, d); rows do not
            depend on each other.
        start: (V, d).
        evaluations: Most evaluations of a row, at least 1.
        tolerance: A row ends when its value is below this share of its first value.

    Returns:
        The best point of each row that was met.

    Source: Nocedal 1980, "Updating quasi-Newton matrices with limited storage"; backtracking until Armijo's condition
    holds, and a row whose search fails forgets its curvature. No row waits for another's line search: with each
    evaluation one row may begin a new step while another halves its own.
    """
    rows, x = torch.arange(len(start), device=start.device), start.clone()
    value, gradient = objective(x, rows)
    goal = tolerance * value
    ends, lowest, used = x.clone(), value.clone(), torch.ones_like(rows)
    going = (value > goal) & torch.isfinite(value)
    curvature = _Curvature(x)
    direction, slope, size, plain = _begin(gradient, curvature)
    tries = torch.zeros_like(rows)
    for _ in range(1, evaluations):
        if int(going.sum()) <= _CROWDED * len(rows):
            ends[rows], lowest[rows] = x, value
            if not bool(going.any()):
                break
            x, value, gradient, direction, slope = (part[going] for part in (x, value, gradient, direction, slope))
            size, plain, tries, rows = (part[going] for part in (size, plain, tries, rows))
            curvature.keep(going)
            going = going[going]
        tried = x + size[:, None] * direction
        tried_value, tried_gradient = objective(tried, rows)
        used[rows] += going
        good = going & (tried_value <= value + _SUFFICIENT * size * slope) & (tried != x).any(1)
        curvature.learn(tried - x, tried_gradient - gradient, good)
        x, gradient = torch.where(good[:, None], tried, x), torch.where(good[:, None], tried_gradient, gradient)
        value, tries = torch.where(good, tried_value, value), torch.where(good, 0, tries + 1)
        stuck = tries >= _TRIES
        going = going & (value > goal[rows]) & ~(stuck & plain)  # down the plain gradient, nothing is left to try
        curvature.forget(stuck)
        turning, size = good | stuck, _SHRINK * size
        if bool(turning.any()):
            begun = _begin(gradient, curvature)
            direction = torch.where(turning[:, None], begun[0], direction)
            slope, size, plain = (
                torch.where(turning, new, old) for new, old in zip(begun[1:], (slope, size, plain), strict=True)
            )
            tries = torch.where(turning, 0, tries)
    ends[rows], lowest[rows] = x, value
    return Minimum(ends, lowest, used, lowest <= goal)


def _begin(gradient: Tensor, curvature: "_Curvature") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return where rows turn (V, d), their slope there, a first size of step, and whether that is the gradient (V,)."""
    direction = curvature.direction(gradient)
    slope = torch.linalg.vecdot(direction, gradient)
    plain = (slope >= 0) | ~curvature.known
    direction = torch.where(plain[:, None], -gradient, direction)
    slope = torch.where(plain, -torch.linalg.vecdot(gradient, gradient), slope)
    short = (1 / gradient.abs().sum(1).clamp(min=_TINY)).clamp(max=1.0)
    return direction, slope, torch.where(plain, short, 1.0), plain


class _Curvature:
    """What rows have learned from their steps: those and the changes of their gradients.

    A row that learned nothing from an evaluation has zeros there, which change nothing.
    """

    def __init__(self, x: Tensor) -> None:
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.inverses: list[Tensor] = []  # of the products of the two, or 0
        self.scale = torch.ones_like(x[:, 0])
        self.known = torch.zeros_like(x[:, 0], dtype=torch.bool)

    def learn(self, step: Tensor, change: Tensor, good: Tensor) -> None:
        """Take in a step (V, d) and what it changed, of those rows where it is good (V,)."""
        product = torch.linalg.vecdot(step, change)
        bent = good & (product > _TINY)
        if not bool(bent.any()):
            return
        length = torch.linalg.vecdot(change, change).clamp(min=_TINY)
        self.scale = torch.where(bent, product / length, self.scale)
        self.known = self.known | bent
        self.steps.append(torch.where(bent[:, None], step, 0))
        self.changes.append(torch.where(bent[:, None], change, 0))
        self.inverses.append(torch.where(bent, 1 / product, 0))
        for kept in (self.steps, self.changes, self.inverses):
            del kept[:-_HISTORY]

    def forget(self, rows: Tensor) -> None:
        """Forget what these rows (V,) bool have learned."""
        if bool(rows.any()):
            for kept in (*self.steps, *self.changes, *self.inverses):
                kept[rows] = 0
            self.scale[rows], self.known[rows] = 1, False

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (V,) bool alone."""
        self.scale, self.known = self.scale[rows], self.known[rows]
        for kept in (self.steps, self.changes, self.inverses):
            kept[:] = [part[rows] for part in kept]

    def direction(self, gradient: Tensor) -> Tensor:
        """Return minus the inverse curvature times the gradient (V, d), by the two loops."""
        q = -gradient
        weights = []
        for s, y, inverse in zip(reversed(self.steps), reversed(self.changes), reversed(self.inverses), strict=True):
            weight = inverse * torch.linalg.vecdot(s, q)
            q.addcmul_(weight[:, None], y, value=-1)
            weights.append(weight)
        q *= self.scale[:, None]
        for s, y, inverse, weight in zip(self.steps, self.changes, self.inverses, reversed(weights), strict=True):
            q.addcmul_((weight - inverse * torch.linalg.vecdot(y, q))[:, None], s)
        return q
