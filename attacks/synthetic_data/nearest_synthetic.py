"""Nearest released row: is a row that was released in place of the real ones next to this very record?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.protocol import Attack, MembershipScores
from attacks.similarity import mixed_distance, mse
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import IntArray, Records, Table

Float64Array = npt.NDArray[np.float64]

NEIGHBOURS = 9
"""Rows beyond the nearest that say how lonely a record is."""

_PAIRS = 2**21  # distances that are held at a time
_TIE = 1e-6  # far below the distance that one year of age, or one unit of any usual column, makes


def distances(records: Records, released: Records) -> Float64Array:
    """Return how far records are from released rows, the label counting as one column more.

    Args:
        records: (n).
        released: (r), of the same kind.

    Returns:
        (n, r): for tables the mean over columns of Gower's distance, in [0, 1]; else the mean squared difference.
    """
    other = (records.y[:, None] != released.y[None]).astype(np.float64)
    if isinstance(records.kind, Table) and records.kind.columns:
        count, apart = len(records.kind.columns), mixed_distance(records.x, released.x, table=records.kind)
    else:
        count, apart = int(np.prod(records.shape)), mse(records.x, released.x)
    return np.asarray((count * apart + other) / (count + 1))


def in_parts(records: Records, released: Records, *, pairs: int = _PAIRS) -> Iterator[IntArray]:
    """Return which records to compare at a time, so that no more than `pairs` pairs, or one record, are compared."""
    step = max(1, pairs // len(released))
    return (np.arange(start, min(start + step, len(records))) for start in range(0, len(records), step))


def nearness_scores(apart: Float64Array, *, loneliness: float = 0.0) -> Float64Array:
    """Score records by how near the nearest released row is; among equally near, the lonelier record ranks higher.

    A row that equals a common record says little, since such people are many; one that equals a record with nobody else
    around was hardly made by chance.

    Args:
        apart: (n, r) distances to the released rows, r at least 1.
        loneliness: Weight of the mean distance to the next `NEIGHBOURS` rows, at least 0; even 0 breaks ties by it.

    Returns:
        (n,) float64, higher = member.

    Examples:
        >>> nearness_scores(np.array([[0.0, 0.1], [0.0, 0.9], [0.3, 0.9]])).argsort()
        array([2, 0, 1])
    """
    most = min(NEIGHBOURS + 1, apart.shape[1])
    near = np.sort(np.partition(apart, most - 1, axis=1)[:, :most], axis=1)
    beyond = near[:, 1:].mean(axis=1) if most > 1 else 0.0
    return np.asarray(max(loneliness, _TIE) * beyond - near[:, 0])


@dataclass(frozen=True)
class NearestSynthetic(Attack):
    """Score each record by the distance to the nearest row that was released in its place.

    Measured on Adult (1,000 members, 1,000 others, 1,000 rows released; AUC, then TPR at 1% FPR, means of 4 releases):
    copies of all members 0.998 and 0.98, half copies and half strangers 0.749 and 0.49, a tenth 0.558 and 0.10; copies
    with a fifth of their columns redrawn 0.717 and 0.21; rows drawn column by column 0.509. Without the tie-break the
    first three rates are 0.25, 0.13 and 0, because more than 1% of strangers equal a member in every column.

    Taking off the distance to population records instead, as density ratios do, finds redrawn copies a little better
    (AUC 0.742) and exact ones worse (0.948); so does `loneliness` = 0.5 (0.735 and 0.941), which needs no population.

    Attributes:
        loneliness: Weight of the mean distance to the next rows, at least 0.

    Source: Hilprecht, Härterich and Bernau 2019, "Monte Carlo and Reconstruction Membership Inference Attacks against
    Generative Models"; Chen et al. 2020, "GAN-Leaks". Deviations: Gower's distance for tables, and ties broken.
    """

    loneliness: float = 0.0

    name = "nearest_synthetic"
    title = "Nearest released row"
    paper = "Chen et al. 2020, GAN-Leaks: A Taxonomy of Membership Inference Attacks against Generative Models"
    requires = ThreatModel(frozenset({Capability.SYNTHETIC, Capability.RECORDS}))

    def __post_init__(self) -> None:
        if not 0 <= self.loneliness < np.inf:
            raise ValueError(f"loneliness is {self.loneliness}; it must be a finite weight of at least 0")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return how near the nearest released row is to each candidate, negated."""
        records, released = view.candidates, view.synthetic
        scores = np.zeros(len(records))
        for part in in_parts(records, released):
            on_progress(Progress("comparing with released rows", int(part[0]), len(records)))
            apart = distances(records.take(part), released)
            scores[part] = nearness_scores(apart, loneliness=self.loneliness)
        return MembershipScores(scores)
