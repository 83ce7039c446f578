"""Noise at the source: what one owner's records become before they leave, in memory or chunk by chunk."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.mechanisms.local.labels import IntArray, check_labels, keep_probability, randomise_labels
from defenses.mechanisms.local.noise import laplace_on_grid
from defenses.mechanisms.local.preparation import (
    Float64Array,
    Missing,
    Standardisation,
    check_epsilon,
    check_rows,
    fresh_rng,
    without_missing,
)
from defenses.modes import Mode

BLOCK = 2**20  # values that get their noise at once
Chunk = tuple[npt.ArrayLike, npt.NDArray[Any] | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What is done to every record at its source.

    Repaired, a record is standardised, clipped to [-bound, bound]^d, and each of its d features gets Laplace noise of
    scale 2 bound d / epsilon, so that the whole record costs epsilon. Literal, nothing is clipped and the scale is
    2 bound / epsilon, as if one feature were all: no epsilon is guaranteed.

    Attributes:
        standardisation: What features are shifted and scaled by.
        epsilon: For all features of one record together, in nats; None adds no noise.
        bound: B, in standard deviations, above 0.
        label_epsilon: For the label, by randomised response; None leaves labels as they are: they must be public.
        classes: Number of labels, where they are randomised.
        missing: What happens to records with missing values.
        mode: Repaired or literal.

    Raises:
        ValueError: If a value is out of range.

    Source: Zhang et al., "AI Model Training Data Privacy Protection Scheme Based on Local Differential Privacy",
    phases A and B. Clipping, sharing epsilon among the features, and labels are the repair.
    """

    standardisation: Standardisation
    epsilon: float | None = None
    bound: float = 3.0
    label_epsilon: float | None = None
    classes: int | None = None
    missing: Missing = Missing.IMPUTE
    mode: Mode = Mode.REPAIRED

    def __post_init__(self) -> None:
        check_bound(self.bound)
        if self.epsilon is not None:
            check_epsilon(self.epsilon, "epsilon of the source")
        if self.label_epsilon is not None:
            if self.classes is None:
                raise ValueError("label_epsilon is given without classes; say how many labels there are, publicly")
            keep_probability(self.label_epsilon, self.classes)

    @property
    def scale(self) -> float:
        """Scale of each feature's noise, in standard deviations; 0 without noise."""
        if self.epsilon is None:
            return 0.0
        return 2 * self.bound / self.epsilon * (1 if self.mode is Mode.LITERAL else len(self.standardisation))

    @property
    def cost(self) -> float:
        """What one record pays beside the statistics, in nats; infinity in literal mode or without noise."""
        if self.epsilon is None or self.mode is Mode.LITERAL:
            return math.inf
        return self.epsilon + (self.label_epsilon or 0.0)

    def assumptions(self) -> tuple[str, ...]:
        """Return what must hold for the cost to be true; one sentence each."""
        said = ["one person contributes one record, and the number of records is public"]
        if self.label_epsilon is None:
            said.append("labels are public: only features are protected")
        if self.missing is Missing.DROP:
            said.append("which records are incomplete is public: they are left out")
        return tuple(said)


def privatize(
    x: npt.ArrayLike, y: npt.NDArray[Any] | None = None, *, source: Source, rng: np.random.Generator | None = None
) -> tuple[Float64Array, IntArray | None]:
    """Return records that may leave the house: standardised, clipped, and noised feature by feature.

    Args:
        x: (n, d) numbers, NaN where a value is missing; one record or many.
        y: (n,) labels, or None.
        source: What is done to them.
        rng: Source of the noise; None, right for any real release, takes one seeded by the operating system.

    Returns:
        (n', d) float64 in standard deviations and (n',) labels; n' is n unless incomplete records are dropped.

    Raises:
        ValueError: If the records do not fit the standardisation, or a label is outside its domain.

    Examples:
        >>> import numpy as np
        >>> from defenses.mechanisms.local.preparation import public_statistics
        >>> known = public_statistics([[20.0, 1.0], [60.0, 3.0]])
        >>> x, _ = privatize([[35.0, np.nan]], source=Source(standardisation=known, epsilon=4.0))
        >>> x.shape
        (1, 2)
    """
    ((features, labels),) = privatize_chunks([(x, y)], source=source, rng=rng)
    return features, labels


def privatize_chunks(
    chunks: Iterable[Chunk], *, source: Source, rng: np.random.Generator | None = None
) -> Iterator[tuple[Float64Array, IntArray | None]]:
    """Do the same to records that come in parts and do not fit memory; each part is let go of before the next.

    Where statistics must be gathered first, that is a pass of its own over the same parts (`clipped_statistics`). With
    the same generator, the parts make up exactly what `privatize` makes of the whole.

    Args:
        chunks: Pairs of (n_i, d) numbers and (n_i,) labels or None, read once.
        source: What is done to them.
        rng: Source of the noise, or None.

    Yields:
        A pair for each part, as `privatize` returns.

    Raises:
        ValueError: As `privatize`, when the part that does not fit is reached.
    """
    for_features, for_labels = (rng or fresh_rng()).spawn(2)
    for x, y in chunks:
        rows = check_rows(x, features=len(source.standardisation))
        if y is not None and len(y) != len(rows):
            raise ValueError(f"there are {len(rows)} records and {len(y)} labels; give one label each")
        rows, labels = without_missing(rows, y, source.missing)
        yield _noised(rows, source, for_features), _labelled(labels, source, for_labels)


def check_bound(bound: float) -> None:
    """Raise ValueError unless the clipping bound is above 0 and finite."""
    if not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"bound is {bound}; features are clipped to [-bound, bound], so it must be above 0 and finite")


def _noised(rows: Float64Array, source: Source, rng: np.random.Generator) -> Float64Array:
    standard = source.standardisation.apply_to(rows)
    if source.mode is Mode.LITERAL:
        return standard + rng.laplace(scale=source.scale, size=standard.shape) if source.scale else standard
    clipped = np.clip(standard, -source.bound, source.bound, out=standard)
    if source.scale:
        block = max(1, BLOCK // clipped.shape[1])  # noise takes twice the memory of what it is added to
        for start in range(0, len(clipped), block):
            part = slice(start, start + block)
            clipped[part] = laplace_on_grid(clipped[part], bound=source.bound, scale=source.scale, rng=rng)
    return clipped


def _labelled(labels: npt.NDArray[Any] | None, source: Source, rng: np.random.Generator) -> IntArray | None:
    if labels is None:
        return None
    if source.label_epsilon is None or source.mode is Mode.LITERAL:
        return check_labels(labels, source.classes)
    assert source.classes is not None
    return randomise_labels(labels, epsilon=source.label_epsilon, classes=source.classes, rng=rng)
