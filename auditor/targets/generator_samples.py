"""Samples of somebody's generator: drawn, checked, and encoded like the records that it was trained on."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from auditor.datasets import encode
from defenses.errors import DataError, PlanError
from defenses.records import FloatArray, Image, IntArray, Records, Table

if TYPE_CHECKING:
    import pandas as pd


def draw_samples(sample: Callable[..., Any], *, like: Records, count: int, seed: int) -> tuple[Records, bool]:
    """Draw samples from a generator, as records like those that it was trained on.

    It is called once, as ``sample(count, seed=seed)``, and returns an array (count, *shape), in the range that records
    are in once they are loaded; or a pair of such an array and labels (count,); or a data frame with the columns of the
    table, with or without its label. torch's global random state is set by the seed too, and left as it was.

    Args:
        sample: The generator.
        like: Records that set shape, range, schema and classes.
        count: How many, at least 1.
        seed: At least 0.

    Returns:
        The samples, and whether they have labels; without, their labels are all 0.

    Raises:
        PlanError: If the generator fails, or what it returns is not that many such records.
    """
    import pandas as pd

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made = sample(count, seed=seed)
        except Exception as error:  # whatever that code does
            raise PlanError(
                f"released.generator failed at sample({count}, seed={seed}): {type(error).__name__}: {error}"
            ) from error
    if isinstance(made, pd.DataFrame):
        return _rows(made, like, count)
    x, y = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    labels = np.zeros(count, dtype=np.int64) if y is None else _labels(y, like.classes, count)
    features = _features(x, like, count)
    return Records(features, labels, like.classes, like.kind, name="samples of a generator"), y is not None


def unlabelled(records: Records) -> Records:
    """Return records whose labels are all 0: where samples have none, nobody's label may tell records apart."""
    return replace(records, y=np.zeros_like(records.y))


def _rows(frame: "pd.DataFrame", like: Records, count: int) -> tuple[Records, bool]:
    schema = like.kind
    if not isinstance(schema, Table):
        raise PlanError(f"released.generator returned rows of a table; {like.name} has images of shape {like.shape}")
    if len(frame) != count:
        raise PlanError(f"released.generator returned {len(frame)} rows where {count} samples were asked for")
    labelled = schema.label in frame
    if not labelled:
        frame = frame.assign(**{schema.label: schema.classes[0]})
    try:
        return encode(frame, schema, name="samples of a generator"), labelled
    except DataError as error:
        raise PlanError(f"released.generator: {error}") from error


def _features(given: Any, like: Records, count: int) -> FloatArray:
    x = _array(given, "samples")
    if x.shape != (count, *like.shape):
        raise PlanError(
            f"released.generator returned samples of shape {x.shape}; {count} records like {like.name} have "
            f"{(count, *like.shape)}"
        )
    if x.dtype.kind not in "fiub":
        raise PlanError(f"released.generator returned samples of type {x.dtype}; return real numbers")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        found = x.astype(np.float32)
    broken = ~np.isfinite(found).reshape(count, -1).all(axis=1)
    if broken.any():
        raise PlanError(
            f"released.generator returned {int(broken.sum())} of {count} samples with values that are not finite: give "
            "a generator that did not diverge"
        )
    low, high = (like.kind.low, like.kind.high) if isinstance(like.kind, Image) else (0.0, 1.0)
    bounded = like.x.min() >= low and like.x.max() <= high  # features that were standardised elsewhere are not
    if bounded and (found.min() < low or found.max() > high):
        raise PlanError(
            f"released.generator returned values from {found.min():g} to {found.max():g}; those of {like.name} lie in "
            f"[{low:g}, {high:g}] once they are loaded: scale or clip the samples to that"
        )
    return found


def _labels(given: Any, classes: int, count: int) -> IntArray:
    y = _array(given, "labels")
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise PlanError(
            f"released.generator returned labels of shape {y.shape} and type {y.dtype}; return {count} whole numbers"
        )
    if y.min() < 0 or y.max() >= classes:
        raise PlanError(
            f"released.generator returned labels from {y.min()} to {y.max()}; classes are 0 to {classes - 1}"
        )
    return y.astype(np.int64)


def _array(given: Any, what: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Return an array of a tensor or of anything that NumPy takes."""
    try:
        return np.asarray(given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given)
    except (TypeError, ValueError) as error:
        raise PlanError(f"released.generator returned {what} that are no array: {error}") from error
