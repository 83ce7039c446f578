"""Several views of one record: the views themselves, their joint likelihood, and that they help where they should."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from attacks.image_views import VIEWS, viewed
from attacks.membership.joint_gaussian import joint_scores
from attacks.membership.lira import LiRA, lira_scores
from defenses.augmentation import Augmentation
from defenses.errors import NotApplicableError
from defenses.records import Image, Records, Table


def example(
    k: int = 16, n: int = 300, q: int = 3, correlation: float = 0.5, spread: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    base, included, truth = rng.normal(scale=3, size=(q, n)), rng.random((k, n)) < 0.5, rng.random(n) < 0.5
    covariance = np.full((q, q), correlation) + (1 - correlation) * np.eye(q)
    gap = 0.8 + spread * rng.normal(size=(1, n))

    def noise(count: int) -> np.ndarray:
        return rng.multivariate_normal(np.zeros(q), covariance, size=(count, n)).transpose(0, 2, 1)

    shadows = base + gap * included[:, None, :] + noise(k)
    return base + gap * truth + noise(1)[0], shadows, included, truth


def test_views_are_those_that_augmentation_makes() -> None:
    rng = np.random.default_rng(0)
    records = Records(rng.normal(size=(4, 2, 5, 6)).astype(np.float32), np.zeros(4, dtype=np.int64), 2, Image())
    shown = viewed(records, len(VIEWS))
    assert np.array_equal(shown[0], records.x)
    for (mirrored, down, right), found in zip(VIEWS, shown, strict=True):
        # Augmentation moves what is seen, not the image, and it mirrors after moving.
        views = torch.tensor([[int(mirrored), 1 - down, 1 + right if mirrored else 1 - right]]).expand(4, -1)
        expected = Augmentation(flip=True, shift=1).apply(torch.from_numpy(records.x), views)
        assert np.array_equal(found, expected.numpy())
    assert len({one.tobytes() for one in shown}) == len(VIEWS)


def test_a_table_has_one_view() -> None:
    records = Records(np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int64), 2, Table((), "y", ()))
    assert len(viewed(records, 1)) == 1
    with pytest.raises(NotApplicableError, match="no views"):
        viewed(records, 2)
    with pytest.raises(ValueError, match=r"1\.\.10"):
        LiRA(queries=11)


def test_one_view_offline_is_lira() -> None:
    target, shadows, included, _ = example(q=1)
    found = joint_scores(target, shadows, included, online=False)
    assert np.allclose(found, lira_scores(target[0], shadows[:, 0], included, online=False, variance="fixed"))


def test_online_with_many_shadows_equals_the_multivariate_normal() -> None:
    target, shadows, included, _ = example(k=2000, n=40, spread=2.0)
    sides = []
    for mask in (~included, included):
        means = [shadows[mask[:, r], :, r].mean(axis=0) for r in range(40)]
        residuals = np.concatenate([shadows[mask[:, r], :, r] - means[r] for r in range(40)])
        covariance = residuals.T @ residuals / (mask.sum() - 40)
        sides.append([multivariate_normal.logpdf(target[:, r], means[r], covariance) for r in range(40)])
    found = joint_scores(target, shadows, included, online=True)
    assert np.allclose(found, np.subtract(sides[1], sides[0]), atol=0.3)  # scores reach 20


@pytest.mark.parametrize("q", [1, 3])
def test_gaps_are_pulled_by_the_share_that_is_noise(q: int) -> None:
    target, shadows, included, truth = example(k=12, n=6000, q=q, spread=0.5)
    own = np.stack([
        lira_scores(target[v], shadows[:, v], included, online=True, variance="fixed") for v in range(q)
    ]).sum(axis=0)  # fmt: skip
    found = roc_auc_score(truth, joint_scores(target, shadows, included, online=True))
    assert found > roc_auc_score(truth, own) + 0.02


@pytest.mark.parametrize("online", [True, False])
def test_more_views_find_more_and_a_repeated_one_does_not(online: bool) -> None:
    target, shadows, included, truth = example(n=4000, correlation=0.2)
    one, three = (
        roc_auc_score(truth, joint_scores(target[:q], shadows[:, :q], included, online=online)) for q in (1, 3)
    )
    assert three > one + 0.05
    twice = joint_scores(target[[0, 0]], shadows[:, [0, 0]], included, online=online)
    assert roc_auc_score(truth, twice) == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("online", [True, False])
def test_the_order_of_shadows_and_of_views_tells_nothing(online: bool) -> None:
    target, shadows, included, _ = example()
    included[:, :3] = [True, False, True]  # records that all shadows saw, or none did
    scores = joint_scores(target, shadows, included, online=online)
    assert np.isfinite(scores).all()
    order = np.random.default_rng(1).permutation(len(shadows))
    assert np.allclose(scores, joint_scores(target, shadows[order], included[order], online=online))
    assert np.allclose(scores, joint_scores(target[::-1], shadows[:, ::-1], included, online=online))
