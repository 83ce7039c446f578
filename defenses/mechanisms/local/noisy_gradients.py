"""One owner's gradients before they leave: clipped in L1, each with Laplace noise of its own."""

import math

import numpy as np
import numpy.typing as npt

from defenses.mechanisms.local.noise import STEPS, laplace_on_grid
from defenses.mechanisms.local.preparation import Float64Array, check_epsilon, fresh_rng


def privatize_gradients(
    gradients: npt.ArrayLike, *, epsilon: float, max_grad_norm: float, rng: np.random.Generator | None = None
) -> Float64Array:
    """Clip each gradient in L1 and add Laplace noise of scale 2 C / epsilon to every coordinate of it.

    Each row is then epsilon-DP by itself, whoever adds them up. The engine draws the sum of a lot's noises at once,
    which has the same law (`defenses.mechanisms.local.gradient_rule`).

    Args:
        gradients: (n, p), one row for each of the owner's records; a row that is not finite counts as 0.
        epsilon: For this one use of each record, in nats, above 0.
        max_grad_norm: Clipping threshold C in L1, above 0.
        rng: Source of the noise; None takes one that is seeded by the operating system.

    Raises:
        ValueError: If a value is out of range, or the gradients are not rows.

    Source: Zhang et al., phase C; clipping is the repair.
    """
    check_epsilon(epsilon, "epsilon of the gradients")
    check_max_grad_norm(max_grad_norm)
    rows = np.asarray(gradients, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"gradients have shape {rows.shape}; give (records, parameters)")
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    norms = np.abs(rows).sum(axis=1, keepdims=True)
    clipped = rows * np.minimum(1.0, max_grad_norm / np.maximum(norms, np.finfo(np.float64).tiny))
    step = max_grad_norm / STEPS
    whole = np.trunc(clipped / step) * step  # towards zero: rounding must not make a gradient longer
    return laplace_on_grid(whole, bound=max_grad_norm, scale=2 * max_grad_norm / epsilon, rng=rng or fresh_rng())


def check_max_grad_norm(max_grad_norm: float) -> None:
    """Raise ValueError unless the clipping threshold is above 0 and finite."""
    if not (max_grad_norm > 0 and math.isfinite(max_grad_norm)):
        raise ValueError(f"max_grad_norm is {max_grad_norm}; it must be a positive number")
