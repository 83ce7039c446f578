"""Principal components: of public records, or of private ones with noise on their second moments."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from defenses.records import FloatArray, Records

Float64Array = npt.NDArray[np.float64]
_ROWS = 8192  # rows that are widened to float64 at a time


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of greatest spread.

    Attributes:
        center: (features,) what is subtracted before the projection.
        basis: (components, features) orthonormal rows, the direction of greatest spread first.
    """

    center: Float64Array
    basis: Float64Array


def fit(x: FloatArray, components: int) -> PrincipalComponents:
    """Return the principal components of records that anybody may see, around their mean.

    Args:
        x: (n, *shape) records; each is flattened.
        components: How many, in 1 .. the lesser of n and the number of features.

    Raises:
        ValueError: If so many cannot be had.

    Source: Pearson 1901, "On Lines and Planes of Closest Fit to Systems of Points in Space".
    """
    features = math.prod(x.shape[1:])
    _check(components, min(len(x), features), f"{len(x)} records of {features} features")
    center = sum((part.sum(0) for part in _flat(x)), np.zeros(features)) / len(x)
    covariance = sum(((part - center).T @ (part - center) for part in _flat(x)), np.zeros((features, features)))
    return PrincipalComponents(center, _leading(covariance, components))


def fit_once(records: Records, components: int) -> PrincipalComponents:
    """Return `fit` of these records; what many models share is not fitted again for each of them."""
    return _fitted(_ByContent(records), components)


def fit_privately(
    x: FloatArray, components: int, *, row_norm: float, noise_multiplier: float, rng: np.random.Generator
) -> PrincipalComponents:
    """Return the leading directions of private records, with Gaussian noise on their second moments.

    One record more or less moves the matrix of second moments, on and above the diagonal, by at most row_norm^2 in L2
    (a row along one axis does). Independent noise of that times `noise_multiplier` is added there and mirrored below:
    one Gaussian mechanism with that multiplier. What is read off the noisy matrix is post-processing.

    Args:
        x: (n, *shape) records; each is flattened, and scaled down to `row_norm` where it is longer.
        components: How many, in 1 .. the number of features.
        row_norm: Above 0, chosen without looking at the records.
        noise_multiplier: Standard deviation of the noise over row_norm^2, above 0.
        rng: Draws the noise.

    Returns:
        The directions; the center is 0, since a mean would have to be released as well.

    Raises:
        ValueError: If a value is out of range.

    Source: Dwork, Talwar, Thakurta and Zhang 2014, "Analyze Gauss"; the noise multiplier is priced by the caller.
    """
    features = math.prod(x.shape[1:])
    _check(components, features, f"records of {features} features")
    if not (noise_multiplier > 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"noise_multiplier is {noise_multiplier}; it must be a positive number")
    moments = second_moments(x, row_norm=row_norm)
    drawn = np.triu(rng.standard_normal(moments.shape))
    symmetric = drawn + np.triu(drawn, 1).T
    return PrincipalComponents(
        np.zeros(features), _leading(moments + noise_multiplier * row_norm**2 * symmetric, components)
    )


def second_moments(x: FloatArray, *, row_norm: float) -> Float64Array:
    """Return the sum over records of r r^T (features, features), each flattened record r scaled down to `row_norm`.

    Raises:
        ValueError: If `row_norm` is not a positive number.
    """
    if not (row_norm > 0 and math.isfinite(row_norm)):
        raise ValueError(
            f"row_norm is {row_norm}; rows are scaled down to that length, so it must be a positive number"
        )
    features = math.prod(x.shape[1:])
    total = np.zeros((features, features))
    for part in _flat(x):
        length = np.linalg.norm(part, axis=1, keepdims=True)
        rows = part * (row_norm / np.maximum(length, row_norm))
        total += rows.T @ rows
    return total


class _ByContent:
    """Records that are one key if they are the same data."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByContent) and other.records.digest == self.records.digest

    def __hash__(self) -> int:
        return hash(self.records.digest)


@functools.lru_cache(maxsize=2)
def _fitted(source: _ByContent, components: int) -> PrincipalComponents:
    return fit(source.records.x, components)


def _flat(x: FloatArray) -> Iterator[Float64Array]:
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        yield part.reshape(len(part), -1).astype(np.float64)


def _leading(matrix: Float64Array, components: int) -> Float64Array:
    """Return the eigenvectors of the largest eigenvalues as rows, each with its largest entry positive."""
    features = len(matrix)
    vectors = scipy.linalg.eigh(matrix, subset_by_index=(features - components, features - 1))[1].T[::-1]
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(components), largest])
    return np.asarray(vectors * signs[:, None], dtype=np.float64)


def _check(components: int, most: int, where: str) -> None:
    if not 1 <= components <= most:
        raise ValueError(f"components is {components}; {where} have 1 to {most}")
