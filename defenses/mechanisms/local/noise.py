"""Laplace noise for a data owner: on a grid, so that the low bits of a floating-point number tell nothing."""

import numpy as np

from defenses.mechanisms.local.preparation import Float64Array

STEPS = 2**16  # of the grid, from the middle of the range to its end


def laplace_on_grid(
    x: Float64Array, *, bound: float | Float64Array, scale: float | Float64Array, rng: np.random.Generator
) -> Float64Array:
    """Round values to a grid on [-bound, bound] and add discrete Laplace noise of nearly this scale.

    The values become whole numbers of steps, and noise is the difference of two geometric variables, which has
    probabilities proportional to exp(-|steps| / scale): replacing a value costs at most 2 bound / scale, and what comes
    out is a multiple of the step whatever went in. The grid has 131,073 points, so the law is within 1e-4 of the
    continuous one. What is drawn does not depend on how rows are cut into chunks.

    Args:
        x: Values, clipped to [-bound, bound] by the caller.
        bound: Where values end, above 0.
        scale: Scale of the noise, above 0, in the units of `x`.
        rng: Source of the noise, two numbers for each value.

    Source: Ghosh, Roughgarden and Sundararajan 2009, "Universally Utility-Maximizing Privacy Mechanisms"; Mironov 2012,
    "On Significance of the Least Significant Bits for Differential Privacy", for why not a floating-point deviate.
    """
    step = bound / STEPS
    drawn = rng.standard_exponential((*x.shape, 2)) * np.asarray(scale / step)[..., None]
    geometric = np.floor(drawn)
    found: Float64Array = (np.rint(x / step) + geometric[..., 0] - geometric[..., 1]) * step
    return found
