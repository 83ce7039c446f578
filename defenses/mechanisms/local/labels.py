"""Labels by k-ary randomised response, and how to undo its bias where frequencies are wanted."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.mechanisms.local.preparation import Float64Array, check_epsilon

IntArray = npt.NDArray[np.int64]


def keep_probability(epsilon: float, classes: int) -> float:
    """Return the chance that a label stays as it is: e^epsilon / (e^epsilon + k - 1).

    Args:
        epsilon: In nats, above 0.
        classes: Number of labels k, at least 2; public.

    Raises:
        ValueError: If a value is out of range.

    Examples:
        >>> round(keep_probability(1.0, 2), 3)
        0.731
    """
    check_epsilon(epsilon, "epsilon of the labels")
    if classes < 2:
        raise ValueError(f"classes is {classes}; randomised response needs at least 2 labels to choose from")
    return 1 / (1 + (classes - 1) * math.exp(-epsilon))


def check_labels(y: npt.NDArray[Any], classes: int | None) -> IntArray:
    """Return labels as (n,) int64.

    Raises:
        ValueError: If one is not a whole number, or not in 0 .. classes - 1 where that is given.
    """
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.number) or not np.equal(np.mod(labels, 1), 0).all():
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}; give one whole number per record")
    if classes is None:
        classes = int(labels.max(initial=0)) + 1
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise ValueError(
            f"label {labels[outside][0]} is outside the public domain 0..{classes - 1}; correct it, or widen the domain"
        )
    return labels.astype(np.int64)


def randomise_labels(y: npt.NDArray[Any], *, epsilon: float, classes: int, rng: np.random.Generator) -> IntArray:
    """Keep each label with `keep_probability`, and otherwise draw one of the others, all alike.

    Each label is epsilon-DP by itself. What is drawn does not depend on how the labels are cut into chunks.

    Args:
        y: (n,) labels in 0 .. classes - 1.
        epsilon: In nats, above 0.
        classes: Number of labels; public.
        rng: Source of the draws, two numbers for each label.

    Raises:
        ValueError: If a value is out of range.

    Source: Warner 1965, "Randomized Response"; Kairouz, Bonawitz and Ramage 2016, "Discrete Distribution Estimation
    under Local Privacy", for k labels.
    """
    labels = check_labels(y, classes)
    keep = keep_probability(epsilon, classes)
    drawn = rng.random((len(labels), 2))
    others = (drawn[:, 1] * (classes - 1)).astype(np.int64)
    return np.where(drawn[:, 0] < keep, labels, (labels + 1 + others) % classes)


def debias(frequencies: npt.ArrayLike, *, epsilon: float, classes: int) -> Float64Array:
    """Return what frequencies (or predicted probabilities) of true labels follow from those of randomised ones.

    The answer is unbiased, and may lie outside [0, 1]. It costs nothing: it is post-processing. A classifier of
    randomised labels needs it for its probabilities alone: which label is the likeliest does not change.

    Args:
        frequencies: (..., classes), summing to 1.
        epsilon: As the labels were randomised with.
        classes: Number of labels.

    Raises:
        ValueError: If a value is out of range.

    Examples:
        >>> debias([keep_probability(1.0, 2), 1 - keep_probability(1.0, 2)], epsilon=1.0, classes=2).round(6)
        array([1., 0.])
    """
    given = np.asarray(frequencies, dtype=np.float64)
    if given.shape[-1:] != (classes,):
        raise ValueError(f"frequencies have shape {given.shape}; give one for each of {classes} labels")
    keep = keep_probability(epsilon, classes)
    other = (1 - keep) / (classes - 1)
    found: Float64Array = (given - other) / (keep - other)
    return found
