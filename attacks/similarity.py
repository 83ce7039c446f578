"""How alike records are, pair by pair: the measures behind every verdict on reconstructions.

Each function takes (r, *shape) and (n, *shape) and returns (r, n). Ranges are public and given, never read off data.
What follows from the numbers is the auditor's business (`auditor.evidence.record_leakage`): a class mean is alike to
everybody.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from defenses.records import Image, Table

if TYPE_CHECKING:
    import torch

Float64Array = npt.NDArray[np.float64]
Range = tuple[float, float]

HIGHEST_PSNR = 100.0  # decibels of an exact match: beyond what float32 images resolve, and finite
_HALF, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # the paper's, for a range of 1
_PAIRS, _PIXELS = 2**12, 2**17


def mse(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64Array:
    """Return the mean squared difference of every pair, at least 0.

    Args:
        a: (r, *shape).
        b: (n, *shape).

    Returns:
        (r, n).

    Raises:
        ValueError: If shapes differ, there are no features, or a value is not finite.

    Examples:
        >>> mse([[0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]])
        array([[0. , 0.5]])
    """
    x, y = _pair(a, b)
    # The inner product is quick and cancels: pairs that it cannot tell from equal are taken again, feature by feature.
    found = np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * (x @ y.T), 0.0)
    scale = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    rows, columns = np.nonzero(found <= 1e-6 * scale)
    for start in range(0, len(rows), _PAIRS):
        i, j = rows[start : start + _PAIRS], columns[start : start + _PAIRS]
        found[i, j] = ((x[i] - y[j]) ** 2).sum(1)
    return np.asarray(found / x.shape[1])


def psnr(a: npt.ArrayLike, b: npt.ArrayLike, *, value_range: Range) -> Float64Array:
    """Return the peak signal-to-noise ratio of every pair in decibels, at most `HIGHEST_PSNR`, which is an exact match.

    Args:
        a: (r, *shape).
        b: (n, *shape).
        value_range: (low, high) of the features, public.

    Returns:
        (r, n), higher is more alike.

    Raises:
        ValueError: As `mse`, or if the range is empty.

    Examples:
        >>> psnr([[0.5, 0.5]], [[0.4, 0.6]], value_range=(0.0, 1.0)).round(6)
        array([[20.]])
    """
    peak = _width(value_range)
    with np.errstate(divide="ignore"):
        found = 20 * np.log10(peak) - 10 * np.log10(mse(a, b))
    return np.asarray(np.minimum(found, HIGHEST_PSNR))


def ssim(a: npt.ArrayLike, b: npt.ArrayLike, *, value_range: Range) -> Float64Array:
    """Return the structural similarity of every pair of images, 1 for an exact match.

    The Gaussian window of 11 pixels and deviation 1.5 of the paper, with images mirrored at their edges; images of
    fewer than 6 pixels get a smaller window.

    Args:
        a: (r, channels, height, width).
        b: (n, channels, height, width).
        value_range: (low, high) of the pixels, public.

    Returns:
        (r, n) in [-1, 1].

    Raises:
        ValueError: As `mse`, or if they are no images, or smaller than 3 pixels.

    Examples:
        >>> image = np.arange(64.0).reshape(1, 1, 8, 8) / 64
        >>> ssim(image, image, value_range=(0.0, 1.0)).round(6)
        array([[1.]])

    Source: Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to structural
    similarity". Every image is smoothed once for all of its pairs, which no library offers.
    """
    import torch

    x, y = (np.asarray(value, dtype=np.float64) for value in (a, b))
    _pair(x, y)
    if x.ndim != 4 or min(x.shape[2:]) < 3:
        raise ValueError(f"records have shape {x.shape[1:]}; structural similarity wants (channels, height, width)")
    half = min(_HALF, min(x.shape[2:]) - 1)
    sigma = _SIGMA if half == _HALF else half / 3.5  # 3.5 deviations to each side
    low, width = value_range[0], _width(value_range)
    one, other = (torch.from_numpy((value - low) / width).float() for value in (x, y))
    down, across = (_window(side, half, sigma) for side in x.shape[2:])

    def smooth(images: torch.Tensor) -> torch.Tensor:
        return down @ images @ across.T

    # Means and variances are each image's own; only the product has to be smoothed pair by pair.
    means = [smooth(value) for value in (one, other)]
    variances = [smooth(value * value) - mean * mean for value, mean in zip((one, other), means, strict=True)]
    found = np.empty(len(x) * len(y))
    count = max(16, _PIXELS // x[0].size)  # what fits into a cache
    for start in range(0, len(found), count):
        pairs = torch.arange(start, min(start + count, len(found)))
        i, j = pairs // len(y), pairs % len(y)
        product = means[0][i] * means[1][j]
        luminance = (2 * product + _C1) / (means[0][i] ** 2 + means[1][j] ** 2 + _C1)
        covariance = smooth(one[i] * other[j]) - product
        structure = (2 * covariance + _C2) / (variances[0][i] + variances[1][j] + _C2)
        found[start : start + len(pairs)] = (luminance * structure).mean(dim=(1, 2, 3)).double().numpy()
    return found.reshape(len(x), len(y))


def _window(side: int, half: int, sigma: float) -> "torch.Tensor":
    """Return the matrix (side, side) that smooths a line of pixels by a Gaussian window, mirrored at the ends."""
    import torch

    offsets = np.arange(-half, half + 1)
    weights = np.exp(-((offsets / sigma) ** 2) / 2)
    places = np.abs(np.arange(side)[:, None] + offsets)
    places = np.where(places >= side, 2 * (side - 1) - places, places)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights / weights.sum())
    return torch.from_numpy(matrix).float()


def ncc(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64Array:
    """Return the zero-mean normalised cross-correlation of every pair; it does not see brightness or contrast.

    Args:
        a: (r, *shape).
        b: (n, *shape).

    Returns:
        (r, n) in [-1, 1]; 0 where either is constant.

    Raises:
        ValueError: As `mse`.

    Examples:
        >>> ncc([[0.0, 1.0, 2.0]], [[5.0, 6.0, 7.0], [1.0, 1.0, 1.0]])
        array([[1., 0.]])
    """
    x, y = _pair(a, b)

    def unit(rows: Float64Array) -> Float64Array:
        centred = rows - rows.mean(axis=1, keepdims=True)
        length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
        still = length <= 1e-12 * np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1.0)
        return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=~still))

    return np.asarray(np.clip(unit(x) @ unit(y).T, -1.0, 1.0))


def mixed_distance(a: npt.ArrayLike, b: npt.ArrayLike, *, table: Table) -> Float64Array:
    """Return the mean over the columns of a table: |difference| over the range of a number, 1 for another category.

    Args:
        a: (r, features) as encoded by the table; a categorical block counts as its largest entry.
        b: (n, features).
        table: The columns.

    Returns:
        (r, n) at least 0; in [0, 1] within the public ranges.

    Raises:
        ValueError: As `mse`, or if the table has other features.

    Source: Gower 1971, "A general coefficient of similarity and some of its properties".
    """
    x, y = _pair(a, b)
    features = max((column.start + column.width for column in table.columns), default=0)
    if x.shape[1] != features:
        raise ValueError(f"records have {x.shape[1]} features, the table's columns make {features}")
    found = np.zeros((len(x), len(y)))
    for column in table.columns:
        block = slice(column.start, column.start + column.width)
        if column.categories:
            found += x[:, block].argmax(1)[:, None] != y[:, block].argmax(1)[None]
        else:
            found += np.abs(x[:, block] - y[:, block].T)
    return found / len(table.columns)


@dataclass(frozen=True)
class Similarity:
    """One measure, with what it needs bound to it.

    Attributes:
        name: Key in plans and reports.
        title: What people read.
        function: (r, *shape), (n, *shape) -> (r, n), higher is more alike.
        bounds: Least and largest value; None where there is no end.
    """

    name: str
    title: str
    function: Callable[[npt.ArrayLike, npt.ArrayLike], Float64Array]
    bounds: Range | None = None

    def __call__(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Float64Array:
        """Return how alike every pair is, (r, n), higher is more alike."""
        return self.function(a, b)


def similarities(kind: Image | Table) -> dict[str, Similarity]:
    """Return the measures that fit a kind of record, by name, the usual one first.

    Args:
        kind: What a record is, with its public ranges.
    """

    def listed() -> Iterator[Similarity]:
        if isinstance(kind, Image):
            ends = (kind.low, kind.high)
            yield Similarity("ssim", "structural similarity", lambda a, b: ssim(a, b, value_range=ends), (-1.0, 1.0))
            yield Similarity("ncc", "normalised cross-correlation", ncc, (-1.0, 1.0))
            yield Similarity("psnr", "peak signal-to-noise ratio", lambda a, b: psnr(a, b, value_range=ends))
        elif kind.columns:
            yield Similarity("gower", "Gower similarity", lambda a, b: 1 - mixed_distance(a, b, table=kind), (0.0, 1.0))
        yield Similarity("mse", "mean squared error, negated", lambda a, b: -mse(a, b))

    return {measure.name: measure for measure in listed()}


def _pair(a: Any, b: Any) -> tuple[Float64Array, Float64Array]:
    """Return both as float64 rows (r, d) and (n, d)."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim < 2 or x.shape[1:] != y.shape[1:] or not x[:1].size + y[:1].size:
        raise ValueError(f"records have shapes {x.shape[1:]} and {y.shape[1:]}; both must be (count, *shape), alike")
    for value in (x, y):
        if not np.isfinite(value).all():
            raise ValueError(f"{int((~np.isfinite(value)).sum())} of {value.size} features are not finite")
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def _width(value_range: Range) -> float:
    low, high = value_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"value_range is {value_range}; give (low, high) with low below high")
    return high - low
