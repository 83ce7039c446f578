"""Whether members and non-members are two draws from one source: neighbours across the sides, and a blind baseline.

Every measure of membership compares two sets of records. If they differ in anything but membership, an attack may tell
them apart without the model, or be unable to tell what the model would give away. Neither check here ever asks the
model.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from auditor.statistics import membership
from defenses.records import BoolArray, IntArray
from reports.records.estimate import Estimate

Float64Array = npt.NDArray[np.float64]

CLOSE = 0.5
"""A nearest neighbour is a near-duplicate if it is nearer than this share of the distance to the next one."""

ROUNDS = 999
FEWEST_BLIND = 40
_CHUNK = 2048
COMPONENTS = 32


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours within pooled records.

    Attributes:
        nearest: (n,) the nearest other record.
        close: (n,) bool: whether it is much nearer than the next one (`CLOSE`).
    """

    nearest: IntArray
    close: BoolArray


@dataclass(frozen=True)
class Crossing:
    """How often a record's nearest neighbour is on the other side, against sides drawn anew.

    Attributes:
        count: Records whose nearest neighbour is on the other side.
        total: Records that were looked at.
        expected: Mean count over sides drawn anew.
        p_more: Share of draws with at least as many, the observed one counted; valid as a p-value.
        p_fewer: Share of draws with at most as many.
    """

    count: int
    total: int
    expected: float
    p_more: float
    p_fewer: float


def reduced(x: npt.ArrayLike, *, seed: int) -> Float64Array:
    """Return records (n, d) by their first 32 principal components, if they are wider; sides play no part in that.

    Near-duplicates stay near, and distances cost a fraction of those between images.
    """
    from sklearn.decomposition import PCA

    values = np.asarray(x, dtype=np.float64)
    kept = min(COMPONENTS, len(values))
    if values.shape[1] <= kept:
        return values
    found = PCA(kept, svd_solver="randomized", random_state=seed).fit_transform(values)
    return np.asarray(found, dtype=np.float64)


def nearest_neighbours(x: npt.ArrayLike) -> Neighbours:
    """Find every record's nearest other record by Euclidean distance, and whether it is a near-duplicate.

    Args:
        x: (n, d) records, n of at least 3.

    Returns:
        The neighbours; of equally near records the first.

    Raises:
        ValueError: If there are fewer than 3 records.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise ValueError(f"records are {values.shape}; give (n, d) with n of at least 3")
    # Distances come from inner products in float32, which is fast but cancels near zero: centring keeps the products
    # small, and the two nearest are measured again exactly.
    points = torch.from_numpy((values - values.mean(axis=0)).astype(np.float32))
    squares = points.square().sum(dim=1)
    found = []
    for start in range(0, len(points), _CHUNK):
        block = points[start : start + _CHUNK]
        distances = squares - 2 * block @ points.T  # up to the block's own squares, which order nothing
        distances[torch.arange(len(block)), start + torch.arange(len(block))] = torch.inf
        found.append(distances.topk(2, dim=1, largest=False).indices)
    two = torch.cat(found).numpy()
    exact = np.stack([np.sqrt(np.square(values - values[two[:, rank]]).sum(axis=1)) for rank in (0, 1)], axis=1)
    swap = exact[:, 1] < exact[:, 0]
    two[swap], exact[swap] = two[swap][:, ::-1], exact[swap][:, ::-1]
    return Neighbours(two[:, 0].astype(np.int64), exact[:, 0] < CLOSE * exact[:, 1])


def crossing(
    nearest: IntArray, members: BoolArray, *, within: BoolArray, rng: np.random.Generator, rounds: int = ROUNDS
) -> Crossing:
    """Count records whose nearest neighbour is on the other side, and draw the sides anew to see what chance gives.

    If the sides are exchangeable, each assignment with these sizes is equally likely while the neighbours stay what
    they are, so the p-values hold exactly, however neighbours depend on each other.

    Args:
        nearest: (n,) each record's nearest other record.
        members: (n,) bool: the sides.
        within: (n,) bool: the records that are counted.
        rng: Draws the sides.
        rounds: How often.

    Returns:
        The count with its p-values, at least 1 / (rounds + 1).

    Source: the nearest-neighbour two-sample test of Schilling (1986), "Multivariate two-sample tests based on nearest
    neighbors", and Henze (1988), calibrated by permutation.
    """
    kept = np.flatnonzero(within)
    count = int((members[kept] != members[nearest[kept]]).sum())
    drawn = np.empty(rounds, dtype=np.int64)
    for one in range(rounds):
        sides = rng.permutation(members)
        drawn[one] = (sides[kept] != sides[nearest[kept]]).sum()
    return Crossing(
        count=count,
        total=len(kept),
        expected=float(drawn.mean()),
        p_more=float((1 + (drawn >= count).sum()) / (1 + rounds)),
        p_fewer=float((1 + (drawn <= count).sum()) / (1 + rounds)),
    )


def blind_baseline(
    x: npt.ArrayLike, y: npt.ArrayLike, members: BoolArray, *, level: float, rng: np.random.Generator
) -> Estimate:
    """Return how well a classifier that never sees the model tells members from non-members.

    Gradient-boosted trees learn from one random half of the records and score the other, so that the interval of the
    AUC holds as it stands; it says nothing of what a better classifier would find.

    Args:
        x: (n, d) records, or what stands for them.
        y: (n,) labels.
        members: (n,) bool: the sides.
        level: Confidence of the interval.
        rng: Draws the halves.

    Returns:
        The AUC on the half that was not learned from; 0.5 if the sides are alike.

    Source: Das, Zhang and Tramer (2024), "Blind Baselines Beat Membership Inference Attacks for Foundation Models".
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    values, sides = np.asarray(x, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    order = rng.permutation(len(sides))
    learn, rest = order[: len(order) // 2], order[len(order) // 2 :]
    if len(order) < FEWEST_BLIND or min(np.bincount(sides[half], minlength=2).min() for half in (learn, rest)) < 2:
        reason = f"{len(order)} records do not suffice for a classifier and its test; give at least {FEWEST_BLIND}"
        return Estimate(method="blind baseline", n=len(rest), reason=reason)
    features = np.column_stack([values, np.asarray(y, dtype=np.float64)])
    seed = int(rng.integers(2**31))
    model = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=seed
    )
    model.fit(features[learn], sides[learn])
    return membership.auc(model.decision_function(features[rest]), sides[rest], level=level)
