"""The verdict statistic: nominal on reconstructions that know nothing, and awake to planted copies."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.similarity import mse, ncc
from auditor.evidence.record_leakage import RecordLeakage, pair, record_leakage

SPLITS = 200


def people(rng: np.random.Generator, count: int, *, classes: int = 4, features: int = 30) -> np.ndarray:
    """Records around class means that everybody knows."""
    means = np.random.default_rng(99).normal(size=(classes, features))
    return means[rng.integers(0, classes, count)] + 0.5 * rng.normal(size=(count, features))


def judged(reconstructions: np.ndarray, train: np.ndarray, holdout: np.ndarray, **more: object) -> RecordLeakage:
    rng = np.random.default_rng(0)
    more = {"permutations": 999} | more
    return record_leakage(-mse(reconstructions, train), -mse(reconstructions, holdout), rng=rng, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["third set", "jittered class means"])
def test_what_knows_nothing_of_the_training_set_is_flagged_at_most_nominally(kind: str) -> None:
    by_auc = by_tpr = by_copies = by_interval = 0
    for split in range(SPLITS):
        rng = np.random.default_rng(split)
        train, holdout = people(rng, 100), people(rng, 100)
        if kind == "third set":
            made = people(rng, 150)
        else:
            made = np.random.default_rng(99).normal(size=(4, 30))[rng.integers(0, 4, 300)]
            made = made + 0.05 * rng.normal(size=made.shape)
        found = judged(made, train, holdout, permutations=199)
        by_auc += found.p_value <= 0.05
        by_tpr += found.tpr_p_value <= 0.05
        by_copies += found.copy_p_value <= 0.05
        by_interval += found.auc.low > 0.5
    most = 20  # 10 are expected of 200; more than this has a chance of one in a thousand
    assert max(by_auc, by_tpr, by_copies, by_interval) <= most


@pytest.mark.parametrize(("share", "caught"), [(0.5, 1.0), (0.1, 0.95)])
def test_planted_copies_are_flagged(share: float, caught: float) -> None:
    flagged = 0
    for split in range(40):
        rng = np.random.default_rng(1000 + split)
        train, holdout = people(rng, 100), people(rng, 100)
        made = people(rng, 100)
        copies = int(share * 100)
        made[:copies] = train[:copies] + 0.01 * rng.normal(size=(copies, 30))
        found = judged(made, train, holdout, permutations=499)
        flagged += min(found.p_value, found.tpr_p_value, found.copy_p_value) <= 0.05 / 3
    assert flagged >= caught * 40


def test_copies_are_counted_and_reach_the_low_false_alarms() -> None:
    rng = np.random.default_rng(5)
    train, holdout = people(rng, 400), people(rng, 400)
    found = judged(train[:100], train, holdout)
    assert found.copy_rate == 1.0
    assert found.expected_copy_rate == 0.5
    assert found.copy_p_value == found.p_value == found.tpr_p_value == 1 / 1000
    assert found.tpr.value == pytest.approx(0.25, abs=0.02)
    assert found.closest_train.tolist() == [0.0] * 100
    assert (found.closest_holdout < 0).all()
    assert found.units == (400, 400)


def test_the_auc_is_that_of_each_records_nearest_reconstruction() -> None:
    rng = np.random.default_rng(6)
    train, holdout, made = people(rng, 50), people(rng, 60), people(rng, 20)
    found = record_leakage(ncc(made, train), ncc(made, holdout), rng=rng)
    nearest = np.concatenate([ncc(made, train).max(0), ncc(made, holdout).max(0)])
    assert found.auc.value == pytest.approx(roc_auc_score(np.arange(110) < 50, nearest))
    assert found.tpr.value is None  # 60 holdout records cannot resolve 1%
    assert "100" in str(found.tpr.reason)


def test_a_person_with_many_records_is_one_unit() -> None:
    rng = np.random.default_rng(7)
    owners = np.repeat(np.arange(40), 10)
    faces = 3 * rng.normal(size=(80, 30))
    train = faces[owners] + 0.1 * rng.normal(size=(400, 30))
    holdout = faces[40 + owners] + 0.1 * rng.normal(size=(400, 30))
    made = faces[:1].repeat(5, axis=0)  # one person of 40 is given away
    alone = judged(made, train, holdout)
    grouped = judged(made, train, holdout, groups_train=owners, groups_holdout=40 + owners)
    assert grouped.units == (40, 40)
    assert grouped.auc.unit == "group of records"
    assert grouped.copy_rate == alone.copy_rate == 1.0
    # Five reconstructions of one person are one find among 80 units: a coin toss, whatever the number of photographs.
    assert grouped.copy_p_value > 0.4


def test_ties_say_nothing() -> None:
    found = record_leakage(np.zeros((3, 50)), np.zeros((3, 50)), rng=np.random.default_rng(0))
    assert (found.auc.value, found.copy_rate) == (0.5, pytest.approx(0.5))
    assert found.p_value == found.tpr_p_value == found.copy_p_value == 1.0


@pytest.mark.parametrize(
    ("ins", "outs", "more", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), {}, "shapes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), {}, "at least one"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), {}, "6 similarities are NaN"),
        (np.zeros((2, 3)), np.zeros((2, 3)), {"permutations": 0}, "permutations is 0"),
        (np.zeros((2, 3)), np.zeros((2, 3)), {"level": 1.0}, "level"),
        (np.zeros((2, 3)), np.zeros((2, 3)), {"groups_train": [0, 1, 2]}, "one side only"),
        (np.zeros((2, 3)), np.zeros((2, 3)), {"groups_train": [0, 1, 2], "groups_holdout": [2, 3, 4]}, "group 2"),
        (
            np.zeros((2, 3)),
            np.zeros((2, 3)),
            {"groups_train": [0, 1], "groups_holdout": [2, 3, 4]},
            "give one for each",
        ),
    ],
)
def test_wrong_input(ins: np.ndarray, outs: np.ndarray, more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_leakage(ins, outs, rng=np.random.default_rng(0), **more)  # type: ignore[arg-type]


def test_pairs_are_the_best_in_sum_and_not_the_greedy_ones() -> None:
    assert pair([[0.9, 0.8], [0.85, 0.1]]).tolist() == [1, 0]  # 0.9 and 0.1 together are less
    with pytest.raises(ValueError, match="square"):
        pair(np.zeros((2, 3)))
