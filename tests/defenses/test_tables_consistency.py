"""Post-processing: tables agree, hold nothing below zero, and say at least as much as they did; trees and draws."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize

from defenses.mechanisms.tables.consistency import clipped, fit, nearest_counts
from defenses.mechanisms.tables.discrete_laplace import KeyStream
from defenses.mechanisms.tables.margins import Margin, Ways, contingency, margins_of, shape_of
from defenses.mechanisms.tables.tree import Step, dependence, draw, order_of

SIZES = {"a": 3, "b": 4, "c": 2, "d": 6}


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return coded rows: b follows a, c follows b, d is on its own."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 3, count)
    b = np.where(rng.random(count) < 0.8, a, rng.integers(0, 4, count))
    c = np.where(rng.random(count) < 0.9, b % 2, rng.integers(0, 2, count))
    return {"a": a, "b": b, "c": c, "d": rng.integers(0, 6, count)}


def tables(codes: dict[str, np.ndarray], margins: tuple[Margin, ...], scale: int, seed: int = 0) -> list[np.ndarray]:
    key = seed.to_bytes(16, "big")
    found = [contingency(codes, margin, shape_of(margin, SIZES)) for margin in margins]
    if scale == 0:
        return found
    noise = KeyStream(key).laplace(Fraction(scale), sum(table.size for table in found))
    ends = np.cumsum([table.size for table in found])[:-1]
    return [table + part.reshape(table.shape) for table, part in zip(found, np.split(noise, ends), strict=True)]


@pytest.mark.parametrize("ways", [Ways.ONE, Ways.TWO, Ways.ONE_AND_TWO])
def test_tables_without_noise_stay_as_they_are(ways: Ways) -> None:
    codes, margins = rows(500), margins_of(ways, list(SIZES))
    true = tables(codes, margins, 0)
    for total in (500.0, None):
        fitted = fit(margins, true, total=total)
        assert fitted.total == pytest.approx(500)
        for margin, table in zip(margins, true, strict=True):
            found = fitted.pairs[margin] if len(margin) == 2 else fitted.ones[margin[0]]
            np.testing.assert_allclose(found, table, atol=1e-3)


@pytest.mark.parametrize("scale", [1, 30, 3000])
def test_fitted_tables_agree_and_hold_nothing_below_zero(scale: int) -> None:
    margins = (("a",), ("a", "b"), ("b", "c"), ("d", "a"), ("c", "d"))
    for seed in range(20):
        fitted = fit(margins, tables(rows(200), margins, scale, seed), total=200.0)
        for name, size in SIZES.items():
            one = fitted.ones[name]
            assert one.shape == (size,)
            assert one.min() >= 0
            assert one.sum() == pytest.approx(200)
        for margin, table in fitted.pairs.items():
            assert table.min() >= 0
            for axis, name in enumerate(margin):
                np.testing.assert_allclose(table.sum(axis=1 - axis), fitted.ones[name], atol=1e-6)


def test_shifting_one_column_undoes_no_other() -> None:
    margins = margins_of(Ways.TWO, list(SIZES))
    fitted = fit(margins, tables(rows(200), margins, 20), total=200.0)
    for name in SIZES:
        said = [table.sum(axis=1 - margin.index(name)) for margin, table in fitted.unclamped.items() if name in margin]
        for one in said[1:]:
            np.testing.assert_allclose(one, said[0], atol=1e-8)


def test_a_shared_column_is_averaged_by_inverse_variance() -> None:
    # Each cell has variance v, so the pairs say a with variance 2 v and 6 v: together 1 / (1/2 + 1/6) = 1.5 v, less
    # what the known total takes: the mean over the 3 values, 1/3 of it.
    margins: tuple[Margin, ...] = (("a", "c"), ("a", "d"))
    codes = rows(9000)
    true = np.bincount(codes["a"], minlength=3)
    errors = np.array(
        [fit(margins, tables(codes, margins, 4, at), total=9000.0).ones["a"] - true for at in range(1000)]
    )
    ratio = np.exp(-1 / 4)
    cell = 2 * ratio / (1 - ratio) ** 2
    assert errors.var() == pytest.approx(1.5 * cell * 2 / 3, rel=0.1)
    assert np.abs(errors.mean(axis=0)).max() < 0.5  # and nothing is pushed up


def test_an_unknown_total_is_estimated_from_all_tables() -> None:
    margins: tuple[Margin, ...] = (("a",), ("d",))
    codes, noise = rows(1000), np.exp(-1 / 5)
    totals = np.array([fit(margins, tables(codes, margins, 5, at), total=None).total for at in range(1000)])
    variance = 2 * noise / (1 - noise) ** 2 / (1 / 3 + 1 / 6)  # sums of 3 and of 6 cells, by inverse variance
    assert totals.mean() == pytest.approx(1000, abs=1)
    assert totals.var() == pytest.approx(variance, rel=0.1)


def test_the_nearest_counts_are_what_an_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        table = rng.normal(size=6) * 10
        found = nearest_counts(table, 12.0)
        best = optimize.minimize(
            lambda x, goal=table: ((x - goal) ** 2).sum(),
            np.full(6, 2.0),
            bounds=[(0, None)] * 6,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 12},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-3)
    np.testing.assert_allclose(nearest_counts(np.full((2, 2), -50.0), 8.0), 2.0)


def test_the_papers_way_is_to_clip_and_normalise() -> None:
    noisy = [np.array([4, -3, 8]), np.array([[1, -2], [3, 0], [-9, 4]])]
    fitted = clipped((("a",), ("b", "c")), noisy, total=100.0)
    np.testing.assert_allclose(fitted.ones["a"] / 100, np.clip(noisy[0], 0, None) / 12)
    np.testing.assert_allclose(fitted.pairs["b", "c"] / 100, np.clip(noisy[1], 0, None) / 8)
    np.testing.assert_allclose(fitted.ones["b"], [12.5, 37.5, 50.0])
    nothing = clipped((("a",),), [np.array([-1, -1, -1])], total=3.0)
    np.testing.assert_allclose(nothing.ones["a"], 1.0)  # all cells below zero: uniform, not a division by zero


def test_the_tree_follows_the_dependence() -> None:
    margins = margins_of(Ways.TWO, list(SIZES))
    fitted = fit(margins, tables(rows(5000), margins, 40), total=5000.0)
    order = order_of(fitted, noise=40.0)
    assert order == (Step("a", None), Step("b", "a"), Step("c", "b"), Step("d", None))
    assert all(step.parent for step in order_of(fitted, noise=40.0, all_pairs=True)[1:])


def test_independent_columns_are_rarely_joined_by_noise() -> None:
    rng, joined = np.random.default_rng(1), 0
    codes = {name: rng.integers(0, size, 1000) for name, size in SIZES.items()}
    margins = margins_of(Ways.TWO, list(SIZES))
    for seed in range(100):
        fitted = fit(margins, tables(codes, margins, 40, seed), total=1000.0)
        joined += sum(step.parent is not None for step in order_of(fitted, noise=40.0))
    assert joined <= 15  # of 600 pairs; rows drawn from a table of noise would be worse than independent ones


def test_dependence_is_nothing_where_columns_are_independent() -> None:
    one, other = np.array([30.0, 70.0]), np.array([50.0, 25.0, 25.0])
    assert dependence(np.outer(one, other) / 100, one, other, noise=0.0) == pytest.approx(0)
    assert dependence(np.diag([50.0, 50.0]), np.full(2, 50.0), np.full(2, 50.0), noise=0.0) == pytest.approx(100)


def test_drawn_rows_follow_the_tables_of_the_tree() -> None:
    margins = margins_of(Ways.TWO, list(SIZES))
    codes = rows(4000)
    fitted = fit(margins, tables(codes, margins, 0), total=4000.0)
    drawn = draw(fitted, order_of(fitted, noise=1.0), 200_000, np.random.default_rng(0))
    for margin in (("a", "b"), ("b", "c"), ("a", "d")):
        shape = shape_of(margin, SIZES)
        expected, found = contingency(codes, margin, shape) / 4000, contingency(drawn, margin, shape) / 200_000
        assert 0.5 * np.abs(expected - found).sum() < (0.01 if margin != ("a", "d") else 0.05)
    # a and c are in no edge together, but b carries their dependence from one to the other
    assert np.corrcoef(drawn["a"], drawn["c"])[0, 1] == pytest.approx(
        np.corrcoef(codes["a"], codes["c"])[0, 1], abs=0.03
    )


def test_tables_that_cannot_be_meant_are_refused() -> None:
    names = ["a", "b", "c"]
    assert margins_of(["a", ("b", "c")], names) == (("a",), ("b", "c"))
    assert margins_of(Ways.WITH_LABEL, names, label="c") == (("a", "c"), ("b", "c"))
    assert len(margins_of(Ways.ONE_AND_TWO, [str(at) for at in range(15)])) == 120
    for wrong, said in (
        ([("a", "e"), ("b", "c")], "'e', which is not there"),
        ([("a", "b", "c")], "has 3 columns"),
        ([("a", "a"), ("b", "c")], "two different ones"),
        ([("a", "b"), ("b", "a"), "c"], "listed twice"),
        ([("a", "b")], "'c' is in no table"),
        (Ways.WITH_LABEL, "no column is named as the label"),
    ):
        with pytest.raises(ValueError, match=said):
            margins_of(wrong, names)
    with pytest.raises(ValueError, match="coarser bins"):
        shape_of(("a", "b"), {"a": 10_000, "b": 10_000})


def test_every_pair_is_counted_once() -> None:
    codes = rows(300)
    for pair in itertools.combinations(SIZES, 2):
        table = contingency(codes, pair, shape_of(pair, SIZES))
        for i, j in itertools.product(*(range(size) for size in table.shape)):
            assert table[i, j] == sum(x == i and y == j for x, y in zip(*(codes[name] for name in pair), strict=True))
