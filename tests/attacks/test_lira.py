"""LiRA against a naive re-implementation, and against the mistakes that were seen elsewhere."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from attacks.membership.lira import lira_scores


def example(k: int = 10, n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Records differ in difficulty; being in raises the confidence by 1.5. Masks are unpaired coins."""
    rng = np.random.default_rng(seed)
    base = rng.normal(scale=3, size=n)
    included = rng.random((k, n)) < 0.5
    shadows = base + 1.5 * included + rng.normal(scale=0.7, size=(k, n))
    truth = rng.random(n) < 0.5
    return base + 1.5 * truth + rng.normal(scale=0.7, size=n), shadows, included, truth


def naive(target, shadows, included, *, online, per_record):  # type: ignore[no-untyped-def]
    """Record by record, with the estimates that stand in where a record has no shadow, or one, on a side."""
    sides = [[column[mask] for column, mask in zip(shadows.T, side.T, strict=True)] for side in (~included, included)]
    means = [[side.mean() if len(side) else None for side in records] for records in sides]
    spreads = []
    for records in sides:
        freedom = sum(len(side) - 1 for side in records if len(side))
        pooled = np.sqrt(sum(np.square(side - side.mean()).sum() for side in records if len(side)) / freedom)
        own = [side.std(ddof=1) if len(side) > 1 else 0 for side in records]
        spreads.append([spread if per_record and spread > 0 else pooled for spread in own])
    pairs = list(zip(*means, strict=True))
    gap = np.mean([inside - outside for outside, inside in pairs if inside is not None and outside is not None])
    everywhere = np.mean([outside for outside, _ in pairs if outside is not None])
    scores = []
    for value, (outside, inside), out, in_ in zip(target, pairs, *spreads, strict=True):
        if online:
            mean_in = outside + gap if inside is None else inside
            mean_out = inside - gap if outside is None else outside
            scores.append(norm.logpdf(value, mean_in, in_) - norm.logpdf(value, mean_out, out))
        else:
            scores.append((value - (everywhere if outside is None else outside)) / out)
    return np.array(scores)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["fixed", "per_record"])
def test_equals_the_naive_formula(online: bool, variance: str) -> None:
    target, shadows, included, _ = example(k=16)
    counts = included.sum(axis=0)
    assert counts.min() >= 2  # so that the naive one is defined
    assert counts.max() <= 14
    found = lira_scores(target, shadows, included, online=online, variance=variance)
    assert np.allclose(found, naive(target, shadows, included, online=online, per_record=variance == "per_record"))


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["fixed", "per_record"])
def test_equals_the_naive_formula_where_shadows_tie_or_are_missing(online: bool, variance: str) -> None:
    target, shadows, included, _ = example(k=16, n=200)
    target, shadows = np.round(target * 4) / 4, np.round(shadows * 4) / 4
    included[:, 0], included[:, 1] = True, False
    included[:, 2], included[:, 3] = np.arange(16) == 5, np.arange(16) != 5
    shadows[:, 4] = 1.25  # no spread at all: the pooled one stands in
    target[5] = target[4] = 1.25
    found = lira_scores(target, shadows, included, online=online, variance=variance)
    expected = naive(target, shadows, included, online=online, per_record=variance == "per_record")
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("online", [True, False])
def test_it_finds_members_that_a_global_threshold_does_not(online: bool) -> None:
    target, shadows, included, truth = example(n=3000)
    found = roc_auc_score(truth, lira_scores(target, shadows, included, online=online))
    assert found > roc_auc_score(truth, target) + 0.15


def test_offline_is_one_sided() -> None:
    # Unusually low confidence is no sign of membership: the lower, the lower the score.
    shadows = np.random.default_rng(0).normal(size=(12, 3))
    out = np.zeros((12, 3), dtype=bool)
    scores = lira_scores(np.array([-9.0, 0.0, 9.0]), shadows, out, online=False)
    assert scores[0] < scores[1] < scores[2]
    far = lira_scores(np.array([-9.0, 40.0, 41.0]), shadows, out, online=False, variance="fixed")
    assert far[2] > far[1]  # a CDF would have saturated at 1


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["fixed", "per_record"])
def test_shuffling_shadows_with_their_masks_changes_nothing(online: bool, variance: str) -> None:
    target, shadows, included, _ = example()
    order = np.random.default_rng(3).permutation(len(shadows))
    one = lira_scores(target, shadows, included, online=online, variance=variance)
    other = lira_scores(target, shadows[order], included[order], online=online, variance=variance)
    assert np.allclose(one, other)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["fixed", "per_record", "auto"])
@pytest.mark.parametrize("k", [2, 3, 10])
def test_records_that_all_or_no_shadows_saw_get_a_number(online: bool, variance: str, k: int) -> None:
    target, shadows, included, _ = example(k=k)
    included[:, 0], included[:, 1] = True, False
    assert np.isfinite(lira_scores(target, shadows, included, online=online, variance=variance)).all()


def test_auto_takes_records_own_variance_from_64_shadows_up() -> None:
    for k, variance in ((63, "fixed"), (64, "per_record")):
        target, shadows, included, _ = example(k=k)
        auto = lira_scores(target, shadows, included, online=True)
        assert np.array_equal(auto, lira_scores(target, shadows, included, online=True, variance=variance))


def test_fixed_variance_is_that_of_residuals() -> None:
    # Between records the raw scores spread widely; within, not at all: the z-score must be on the small scale.
    rng = np.random.default_rng(0)
    base = rng.normal(scale=100, size=50)
    shadows = base + rng.normal(scale=0.1, size=(20, 50))
    found = lira_scores(base + 0.5, shadows, np.zeros((20, 50), dtype=bool), online=False, variance="fixed")
    assert np.allclose(found, 5, atol=1)


def test_what_cannot_be_scored_is_refused() -> None:
    target, shadows, included, _ = example()
    with pytest.raises(ValueError, match="not finite"):
        lira_scores(np.full(40, np.inf), shadows, included, online=True)
    with pytest.raises(ValueError, match=r"\(k, n\)"):
        lira_scores(target[:5], shadows, included, online=True)
    with pytest.raises(ValueError, match="every shadow saw every record"):
        lira_scores(target, shadows, np.ones_like(included), online=False)
    with pytest.raises(ValueError, match="online=False"):
        lira_scores(target, shadows, np.zeros_like(included), online=True)


def test_shadows_that_agree_to_rounding_borrow_the_pooled_spread() -> None:
    target, shadows, included, _ = example(k=16)
    shadows[:, 0] = 0.1  # its mean is 0.1 plus rounding, so the residuals are not exactly zero
    found = lira_scores(target, shadows, included, online=False, variance="per_record")
    assert abs(found[0]) < 100
