"""The law of the lots, and that nobody's draw depends on who else is in."""

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from defenses.sampling import Lots, poisson_lots, shuffled_lots


def test_poisson_lots_are_independent_coins() -> None:
    lots = Lots(expected_members=50, batch_size=10, epochs=1)
    everyone = np.ones(100, dtype=bool)
    drawn = [lot for seed in range(600) for lot in poisson_lots(lots, everyone, seed=seed, epoch=0)]
    sizes = np.array([len(lot) for lot in drawn])
    counts = np.bincount(np.concatenate(drawn), minlength=100)
    assert np.abs(counts - len(drawn) * 0.2).max() < 5 * np.sqrt(len(drawn) * 0.16)
    edges = np.arange(14, 28)  # lot sizes must be binomial: coins, not a fixed size
    expected = binom.pmf(edges, 100, 0.2)
    seen = np.array([(sizes == size).sum() for size in edges])
    inside = seen.sum()
    assert chisquare(seen, expected / expected.sum() * inside).pvalue > 1e-3
    assert sizes.max() > 30  # longer than any capacity taken from the mean: nothing is truncated


def test_the_draw_for_one_record_does_not_depend_on_the_others() -> None:
    lots = Lots(50, 10, 1)
    some = np.random.default_rng(0).random(100) < 0.5
    one_more = some.copy()
    one_more[np.flatnonzero(~some)[0]] = True
    for lot, larger in zip(
        poisson_lots(lots, some, seed=3, epoch=2), poisson_lots(lots, one_more, seed=3, epoch=2), strict=True
    ):
        assert set(lot) == set(larger) & set(np.flatnonzero(some))


def test_number_of_lots_is_public() -> None:
    lots = Lots(50, 8, 3)
    for count in (1, 20, 99):
        included = np.arange(100) < count
        assert len(poisson_lots(lots, included, seed=1, epoch=0)) == lots.steps_per_epoch == 7


def test_a_shuffled_pass_holds_every_member_once() -> None:
    included = np.random.default_rng(1).random(100) < 0.5
    drawn = shuffled_lots(Lots(50, 8, 1), included, seed=1, epoch=0)
    assert sorted(np.concatenate(drawn)) == list(np.flatnonzero(included))
    assert {len(lot) for lot in drawn[:-1]} == {8}
    assert list(np.concatenate(shuffled_lots(Lots(50, 8, 1), included, seed=1, epoch=1))) != list(np.concatenate(drawn))


@pytest.mark.parametrize(("members", "lot", "epochs"), [(0, 1, 1), (10, 11, 1), (10, 0, 1), (10, 5, 0)])
def test_impossible_lots_are_refused(members: int, lot: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Lots(members, lot, epochs)
