"""Neighbours across the sides and the blind baseline: levels under one source, near-duplicates and shifts seen."""

import numpy as np
import pytest
from scipy.stats import binom

from auditor.datasets.two_sides import blind_baseline, crossing, nearest_neighbours


def everyone(count: int) -> np.ndarray:
    return np.ones(count, dtype=np.bool_)


def test_neighbours_are_those_of_a_naive_search() -> None:
    # Fails if a record is its own neighbour, or if float32 products far from zero cancel (the offset).
    rng = np.random.default_rng(0)
    x = 1000 + rng.normal(size=(300, 7))
    x[10] = x[20] + 1e-4
    distances = np.sqrt(np.square(x[:, None] - x[None]).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    two = np.sort(distances, axis=1)[:, :2]
    found = nearest_neighbours(x)
    assert np.array_equal(found.nearest, distances.argmin(axis=1))
    assert np.array_equal(found.close, two[:, 0] < 0.5 * two[:, 1])
    assert found.close[[10, 20]].all()
    with pytest.raises(ValueError, match="at least 3"):
        nearest_neighbours(x[:2])


def test_more_records_than_one_chunk() -> None:
    # Fails if the diagonal is left out of the first chunk only: records then find themselves.
    x = np.random.default_rng(0).normal(size=(2500, 3))
    assert (nearest_neighbours(x).nearest != np.arange(2500)).all()


def test_what_chance_gives_is_the_closed_form() -> None:
    # Every edge crosses with probability 2 a b / (n (n - 1)) over sides of a and b records.
    rng = np.random.default_rng(1)
    members = np.arange(90) < 30
    found = crossing(
        nearest_neighbours(rng.normal(size=(90, 2))).nearest, members, within=everyone(90), rng=rng, rounds=4000
    )
    assert found.expected == pytest.approx(90 * 2 * 30 * 60 / (90 * 89), rel=0.02)


def test_p_values_hold_on_one_source() -> None:
    # Fails if the count is compared with a binomial: mutual neighbours cross together, which doubles the variance.
    rng, more, fewer = np.random.default_rng(2), 0, 0
    for _ in range(300):
        x, members = rng.normal(size=(60, 2)), rng.random(60) < 0.5
        found = crossing(nearest_neighbours(x).nearest, members, within=everyone(60), rng=rng, rounds=199)
        more, fewer = more + (found.p_more <= 0.05), fewer + (found.p_fewer <= 0.05)
    for count in (more, fewer):
        assert binom.sf(count - 1, 300, 0.05) > 1e-3


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_near_duplicates_across_the_sides_are_seen(share: float) -> None:
    # A holdout of members with a little noise: fails if only exact repetitions are compared, or if close pairs drown
    # among all neighbours (5%).
    rng = np.random.default_rng(3)
    members = rng.normal(size=(500, 10))
    others = rng.normal(size=(500, 10))
    copied = round(share * 500)
    others[:copied] = members[:copied] + rng.normal(scale=0.05, size=(copied, 10))
    found = nearest_neighbours(np.vstack([members, others]))
    sides = np.arange(1000) < 500
    close = crossing(found.nearest, sides, within=found.close, rng=rng)
    assert close.p_more <= 0.0025
    assert close.count >= 2 * copied * 0.9


def test_duplicates_that_coins_spread_over_both_sides_are_no_finding() -> None:
    # Data with natural pairs: fails if duplicates are counted and not compared with sides drawn anew.
    rng, flagged = np.random.default_rng(4), 0
    for _ in range(100):
        x = np.repeat(rng.normal(size=(100, 5)), 2, axis=0) + rng.normal(scale=0.01, size=(200, 5))
        found, sides = nearest_neighbours(x), rng.random(200) < 0.5
        flagged += crossing(found.nearest, sides, within=found.close, rng=rng, rounds=399).p_more <= 0.01
    assert binom.sf(flagged - 1, 100, 0.01) > 1e-3


def test_a_shift_keeps_neighbours_on_their_own_side() -> None:
    rng, sides = np.random.default_rng(5), np.arange(600) < 300
    x = rng.normal(size=(600, 4)) + 1.5 * sides[:, None]
    assert crossing(nearest_neighbours(x).nearest, sides, within=everyone(600), rng=rng).p_fewer <= 0.0025


def test_a_blind_classifier_finds_nothing_on_one_source_and_a_shift_where_there_is_one() -> None:
    # Fails if the classifier is scored on records that it learned from: its AUC is then near 1 on one source too.
    rng, above = np.random.default_rng(6), 0
    for _ in range(30):
        x, y, sides = rng.normal(size=(200, 5)), rng.integers(0, 3, 200), rng.random(200) < 0.5
        found = blind_baseline(x, y, sides, level=0.9, rng=rng)
        above += (found.low or 0) > 0.5
    assert binom.sf(above - 1, 30, 0.05) > 1e-3
    bright = rng.random((800, 64)) * np.where(np.arange(800) < 400, 1.0, 0.8)[:, None]
    found = blind_baseline(bright, np.zeros(800), np.arange(800) < 400, level=0.99, rng=rng)
    assert (found.low or 0) > 0.9
    assert found.n == 400


def test_labels_alone_can_give_the_sides_away() -> None:
    rng, sides = np.random.default_rng(7), np.arange(800) < 400
    y = np.where(sides, rng.integers(0, 3, 800), rng.integers(1, 4, 800))
    assert (blind_baseline(rng.normal(size=(800, 3)), y, sides, level=0.99, rng=rng).low or 0) > 0.5


def test_too_few_records_get_a_reason() -> None:
    found = blind_baseline(np.zeros((20, 2)), np.zeros(20), np.arange(20) < 10, level=0.9, rng=np.random.default_rng(0))
    assert found.value is None
    assert "20 records do not suffice" in (found.reason or "")
