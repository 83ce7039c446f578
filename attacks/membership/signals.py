"""What a model's output says about one record, in float64 straight from logits."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

Float64Array = npt.NDArray[np.float64]


def log_probability(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> Float64Array:
    """Return the log-probability of the true class, which is minus the cross-entropy loss.

    Args:
        logits: (..., C).
        y: Labels in 0 .. C - 1, broadcastable to logits.shape[:-1].

    Returns:
        (...) float64, at most 0; higher where the model fits the record better.
    """
    wide = np.asarray(logits, dtype=np.float64)
    true = _true(wide, y)
    return np.asarray(true - logsumexp(wide, axis=-1), dtype=np.float64)


def logit_confidence(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> Float64Array:
    """Return log(p / (1 - p)) of the true class as z_y - logsumexp(z_other), which never overflows.

    Args:
        logits: (..., C) with C of at least 2.
        y: Labels in 0 .. C - 1, broadcastable to logits.shape[:-1].

    Returns:
        (...) float64, finite for finite logits.

    Raises:
        ValueError: If there are fewer than two classes, or a label is out of range.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV-C (the scaled
    confidence), evaluated without forming p.
    """
    wide = np.asarray(logits, dtype=np.float64)
    if wide.shape[-1] < 2:
        raise ValueError(f"{wide.shape[-1]} class in the logits; the logit of a confidence needs at least 2")
    true = _true(wide, y)
    others = wide.copy()
    np.put_along_axis(others, _labels(wide, y), -np.inf, axis=-1)
    return np.asarray(true - logsumexp(others, axis=-1), dtype=np.float64)


def probability(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> Float64Array:
    """Return the probability of the true class, (...) float64 in (0, 1]."""
    return np.asarray(np.exp(log_probability(logits, y)))


def _labels(logits: Float64Array, y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    labels = np.broadcast_to(np.asarray(y, dtype=np.int64), logits.shape[:-1])
    if labels.size and (labels.min() < 0 or labels.max() >= logits.shape[-1]):
        raise ValueError(
            f"labels reach {labels.min()}..{labels.max()}; the logits have classes 0..{logits.shape[-1] - 1}"
        )
    return labels[..., None]


def _true(logits: Float64Array, y: npt.NDArray[Any]) -> Float64Array:
    return np.take_along_axis(logits, _labels(logits, y), axis=-1)[..., 0]
