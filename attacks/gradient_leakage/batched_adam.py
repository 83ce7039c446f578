"""Adam on the signs of gradients, within a box, on many problems at once: for functions whose slopes say little."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.gradient_leakage.batched_lbfgs import Minimum, Objective

_DECAYS, _DECAY = (3 / 8, 5 / 8, 7 / 8), 0.1
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class SignedAdam:
    """Minimise V functions of d variables side by side, each variable in [0, 1].

    Attributes:
        step_size: Of the first steps; a tenth of it after 3/8, 5/8 and 7/8 of the evaluations each.

    Source: Geiping et al. 2020, "Inverting Gradients: How easy is it to break privacy in federated learning?".
    """

    step_size: float = 0.1

    def __call__(self, objective: Objective, start: Tensor, *, evaluations: int, tolerance: float) -> Minimum:
        """Return the best point of each row that was met.

        Args:
            objective: (V, d) points and (V,) the rows that they are of, here all -> values (V,) and gradients (V, d).
            start: (V, d), brought into the box first.
            evaluations: Of each row, at least 1; all are taken, since steps get shorter by this plan.
            tolerance: A row counts as converged when its value is below this share of its first value.
        """
        x = start.clamp(0, 1)
        rows = torch.arange(len(x), device=x.device)
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        best, lowest, goal = x, torch.full_like(x[:, 0], torch.inf), torch.zeros_like(x[:, 0])
        for done in range(1, evaluations + 1):
            value, gradient = objective(x, rows)
            if done == 1:
                goal = tolerance * value
            better = value < lowest
            best, lowest = torch.where(better[:, None], x, best), torch.where(better, value, lowest)
            sign = gradient.nan_to_num().sign()
            first, second = torch.lerp(sign, first, _FIRST), torch.lerp(sign.square(), second, _SECOND)
            length = self.step_size * _DECAY ** sum(done > share * evaluations for share in _DECAYS)
            scale = (second / (1 - _SECOND**done)).sqrt() + _TINY
            x = (x - length * first / (1 - _FIRST**done) / scale).clamp(0, 1)
        used = torch.full(lowest.shape, evaluations, device=x.device)
        return Minimum(best, lowest, used, lowest <= goal)
