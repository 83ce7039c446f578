"""Decision-boundary distance: how far a record must be moved until its predicted label changes; needs labels alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import FloatArray, Image, IntArray, Records

Labels = Callable[[FloatArray], IntArray]
Float64Array = npt.NDArray[np.float64]

_BANK = 1000  # records among which each one's nearest of another label is looked for
_CHUNK_BYTES = 2**26
_PRECISION = 1e-3  # of the distance, to which a boundary point is searched
_RADIUS = 1e-2  # of the distance: where around the boundary point its normal is probed
_HALVINGS = 8


def boundary_distance(
    labels: Labels,
    x: FloatArray,
    start: FloatArray,
    *,
    rng: np.random.Generator,
    iterations: int,
    evaluations: int,
    low: float,
    high: float,
) -> Float64Array:
    """Return an upper bound on each record's L2 distance to the decision boundary, by HopSkipJump.

    A point of another label is pulled to the boundary; there the boundary's normal is estimated from the labels of
    random points around it, a step is made along it, and the result is pulled to the boundary again.

    Args:
        labels: (n, *shape) -> (n,) predicted classes.
        x: (n, *shape) records.
        start: (n, *shape) for each a point that gets another label.
        rng: Draws the probes.
        iterations: Normals estimated, at least 0.
        evaluations: Probes of the first normal; the t-th takes sqrt(t) times as many.
        low: Least value of a feature.
        high: Largest value of a feature.

    Returns:
        (n,) float64, above 0.

    Source: Chen, Jordan, Wainwright 2020, "HopSkipJumpAttack", Algorithm 2 with the L2 norm; all records at once.
    """
    shape, flat = x.shape, x.reshape(len(x), -1)
    own = labels(x)

    def crossed(points: npt.NDArray[Any], which: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        return np.asarray(labels(points.reshape(-1, *shape[1:]).astype(np.float32)) != own[which])

    everyone = np.arange(len(x))
    near = _to_boundary(crossed, flat, start.reshape(len(x), -1), everyone)
    best = _norm(near - flat)
    for t in range(1, iterations + 1):
        distance = _norm(near - flat)
        normal = _normals(crossed, near, _RADIUS * distance, int(evaluations * math.sqrt(t)), rng, low, high)
        moved, left = near.copy(), everyone
        size = distance / math.sqrt(t)
        for _ in range(_HALVINGS):
            tried = np.clip(near[left] + size[left, None] * normal[left], low, high)
            over = crossed(tried, left)
            moved[left[over]] = tried[over]
            left = left[~over]
            if not len(left):
                break
            size[left] /= 2
        near = _to_boundary(crossed, flat, moved, everyone)
        best = np.minimum(best, _norm(near - flat))
    return best


def _to_boundary(
    crossed: Callable[..., npt.NDArray[np.bool_]], x: FloatArray, far: FloatArray, everyone: npt.NDArray[np.intp]
) -> FloatArray:
    """Return the point nearest to x on the line to `far` that still has another label."""
    inside, outside = np.zeros(len(x)), np.ones(len(x))
    while (outside - inside > _PRECISION * outside).any():
        middle = (inside + outside) / 2
        over = crossed(x + middle[:, None] * (far - x), everyone)
        outside, inside = np.where(over, middle, outside), np.where(over, inside, middle)
        if outside.max() < _PRECISION**3:
            break
    return np.asarray(x + outside[:, None] * (far - x), dtype=np.float32)


def _normals(
    crossed: Callable[..., npt.NDArray[np.bool_]],
    points: FloatArray,
    radius: Float64Array,
    probes: int,
    rng: np.random.Generator,
    low: float,
    high: float,
) -> FloatArray:
    """Return the estimated unit normals at boundary points, pointing away from the record."""
    found = np.empty_like(points)
    chunk = max(1, _CHUNK_BYTES // (probes * points.shape[1] * 4))
    for first in range(0, len(points), chunk):
        here = slice(first, first + chunk)
        center, reach = points[here], radius[here, None, None].astype(np.float32)
        drawn = rng.standard_normal((len(center), probes, points.shape[1]), dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
        tried = np.clip(center[:, None] + reach * drawn, low, high)
        directions = (tried - center[:, None]) / np.maximum(reach, 1e-12)
        which = np.repeat(np.arange(first, first + len(center)), probes)
        sides = np.where(crossed(tried, which), 1.0, -1.0).reshape(len(center), probes)
        mean = sides.mean(axis=1, keepdims=True)
        # Subtracting the mean lowers the variance; where all probes agree it would leave nothing.
        weights = np.where(np.abs(mean) == 1, sides, sides - mean).astype(np.float32)
        sums = np.einsum("np,npd->nd", weights, directions)
        found[here] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return found


def _norm(rows: FloatArray) -> Float64Array:
    return np.asarray(np.linalg.norm(rows.astype(np.float64), axis=1))


@dataclass(frozen=True)
class BoundaryDistance(Attack):
    """Score each record by its distance to the decision boundary; a misclassified one by minus its distance.

    Asks for about 12 labels and 1.7 * evaluations labels per record and iteration; for budgets, lower both.

    Attributes:
        iterations: HopSkipJump iterations, at least 0 (0: the line to the nearest record of another label).
        evaluations: Probes of the first iteration, at least 10.

    Source: Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks", section 4.3; Li and Zhang 2021,
    "Membership Leakage in Label-Only Exposures". Deviation: records that the target misclassifies are ranked by how far
    they are from their label instead of all alike.
    """

    iterations: int = 5
    evaluations: int = 60

    name = "boundary_distance"
    title = "Decision-boundary distance"
    paper = "Choquette-Choo et al. 2021, Label-Only Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.LABELS, Capability.RECORDS}))

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.evaluations < 10:
            raise ValueError(
                f"iterations is {self.iterations} and evaluations {self.evaluations}; at least 0 and 10 are needed"
            )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return each candidate's distance, negative where the label is wrong."""
        records = view.candidates
        said = view.labels(records.x)
        start, found = _starts(records, said, rng)
        kind = records.kind
        low, high = (
            (kind.low, kind.high) if isinstance(kind, Image) else (float(records.x.min()), float(records.x.max()))
        )
        distance = np.full(len(records), math.sqrt(records.x[0].size) * (high - low))
        where = np.flatnonzero(found)
        step = 256
        for first in range(0, len(where), step):
            some = where[first : first + step]
            distance[some] = boundary_distance(
                view.labels,
                records.x[some],
                start[some],
                rng=rng,
                iterations=self.iterations,
                evaluations=self.evaluations,
                low=low,
                high=high,
            )
            on_progress(Progress("boundary distance", min(first + step, len(where)), len(where)))
        notes = (
            () if found.all() else (f"{int((~found).sum())} records have no record of another label to start from.",)
        )
        return MembershipScores(np.where(said == records.y, distance, -distance), notes)


def _starts(records: Records, said: IntArray, rng: np.random.Generator) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return each record's nearest among some that get another label (the right one, if its own is wrong)."""
    bank = np.sort(rng.permutation(len(records))[:_BANK])
    flat = records.x.reshape(len(records), -1).astype(np.float32)
    squares = np.square(flat).sum(axis=1)
    start, found = records.x.copy(), np.zeros(len(records), dtype=np.bool_)
    for first in range(0, len(records), 512):
        rows = np.arange(first, min(first + 512, len(records)))
        away = squares[rows, None] + squares[bank] - 2 * flat[rows] @ flat[bank].T
        right = said[bank] == records.y[rows, None]
        other = said[bank] != said[rows, None]
        wanted = np.where((said[rows] == records.y[rows])[:, None], other, right & other)
        wanted = np.where(wanted.any(axis=1, keepdims=True), wanted, other)
        away = np.where(wanted, away, np.inf)
        nearest = away.argmin(axis=1)
        found[rows] = wanted.any(axis=1)
        start[rows] = np.where(
            found[rows].reshape(-1, *(1,) * (records.x.ndim - 1)), records.x[bank[nearest]], records.x[rows]
        )
    return start, found
