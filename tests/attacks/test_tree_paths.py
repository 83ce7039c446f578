"""Path finding against scikit-learn's trees on real data, trees made by hand, and targets that are no such tree."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.tree import DecisionTreeClassifier

from attacks.extraction.tree_paths import Categorical, Continuous, Feature, Leaves, find_leaves


class Asked:
    """A query function that counts, and keeps what it was asked."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.answer, self.rows = answer, np.empty((0, 0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.rows = x if not self.rows.size else np.concatenate([self.rows, x])
        return self.answer(x)


def ranges(x: np.ndarray) -> list[Feature]:
    beyond = 0.1 * np.ptp(x, axis=0)
    return [Continuous(low, high) for low, high in zip(x.min(0) - beyond, x.max(0) + beyond, strict=True)]


def agrees(leaves: Leaves, x: np.ndarray, tree_says: np.ndarray) -> bool:
    found = leaves.predict(x)
    return bool((found >= 0).all() and np.array_equal(leaves.answers[found], tree_says))


@pytest.mark.parametrize(("load", "most"), [(load_iris, 315), (load_wine, 600), (load_breast_cancer, 1800)])
def test_a_tree_is_copied_exactly(load: Callable[..., tuple[np.ndarray, np.ndarray]], most: int) -> None:
    x, y = load(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(x, y)
    query = Asked(lambda rows: tree.apply(rows.astype(np.float32)))
    leaves = find_leaves(query, ranges(x))
    assert leaves.complete
    assert len(leaves.answers) == tree.get_n_leaves()
    assert agrees(leaves, x, tree.apply(x.astype(np.float32)))
    for j, feature in enumerate(leaves.features):
        assert isinstance(feature, Continuous)
        planted = np.unique(tree.tree_.threshold[tree.tree_.feature == j])
        found = leaves.thresholds(j)
        reach = 1e-6 * (feature.high - feature.low)
        assert all(np.abs(found - threshold).min() <= reach for threshold in planted)
        assert all(np.abs(planted - threshold).min() <= reach for threshold in found)
    assert leaves.queries == len(query.rows) <= most
    assert leaves.coverage == pytest.approx(1, abs=1e-5)


def test_leaves_anywhere_in_the_range_and_not_only_at_records() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    tree = DecisionTreeClassifier(random_state=0, splitter="random").fit(x, rng.integers(0, 3, 200))
    leaves = find_leaves(lambda rows: tree.apply(rows.astype(np.float32)), [Continuous(-1, 2)] * 3, tolerance=1e-7)
    assert leaves.complete
    assert len(leaves.answers) == tree.get_n_leaves() > 100
    fresh = rng.uniform(-1, 2, (20_000, 3))
    assert np.mean(leaves.answers[leaves.predict(fresh)] == tree.apply(fresh.astype(np.float32))) > 0.9999


def test_categories_of_german_credit(data_dir: Path) -> None:
    with gzip.open(data_dir / "tabular_small" / "german.data.gz", "rt") as file:
        rows = [line.split() for line in file]
    columns: list[np.ndarray] = []
    features: list[Feature] = []
    for column in list(zip(*rows, strict=True))[:-1]:
        if column[0].startswith("A"):
            names, codes = np.unique(column, return_inverse=True)
            columns.append(codes.astype(float))
            features.append(Categorical(len(names)))
        else:
            columns.append(np.array(column, dtype=float))
            features.append(Continuous(columns[-1].min(), columns[-1].max()))
    x, y = np.column_stack(columns), np.array([int(row[-1]) for row in rows])

    def encoded(some: np.ndarray) -> np.ndarray:
        return np.column_stack(
            [
                np.eye(feature.values)[some[:, j].astype(int)] if isinstance(feature, Categorical) else some[:, j]
                for j, feature in enumerate(features)
            ]
        ).astype(np.float32)

    tree = DecisionTreeClassifier(random_state=0, min_samples_leaf=5).fit(encoded(x), y)
    leaves = find_leaves(lambda some: tree.apply(encoded(some)), features)
    assert leaves.complete
    assert len(leaves.answers) == tree.get_n_leaves() == 109
    assert agrees(leaves, x, tree.apply(encoded(x)))
    assert leaves.queries < 6200

    # Confidences: 9 of the leaves give an answer that another one gives too, and that is not passed over in silence.
    doubtful = find_leaves(lambda some: tree.predict_proba(encoded(some)), features)
    assert not doubtful.complete
    assert "same answer" in doubtful.shortfall


def test_sets_of_categories_and_a_number() -> None:
    # Splits on a number, on {0, 3} against {1, 2, 4}, and again on the number: five leaves.
    def tree(x: np.ndarray) -> np.ndarray:
        left = np.isin(x[:, 1], [0, 3])
        low = np.where(left, np.where(x[:, 0] <= 0.7, 0, 1), 2)
        return np.where(x[:, 0] <= 0.9, low, np.where(x[:, 2] == 1, 3, 4))

    query = Asked(tree)
    leaves = find_leaves(query, [Continuous(0, 1), Categorical(5), Categorical(3)], checks=0)
    assert leaves.complete
    assert sorted(leaves.answers) == [0, 1, 2, 3, 4]
    sets = dict(zip(leaves.answers.tolist(), leaves.allowed, strict=True))
    assert sets[0][1].tolist() == sets[1][1].tolist() == [True, False, False, True, False]
    assert sets[2][1].tolist() == [False, True, True, False, True]
    assert sets[3][2].tolist()[:3] == [False, True, False]
    assert leaves.thresholds(0) == pytest.approx([0.7, 0.9], abs=1e-6)
    assert len(np.unique(query.rows, axis=0)) == len(query.rows) == leaves.queries  # nothing is asked twice


def test_known_thresholds_and_boxes_save_queries() -> None:
    # A grid of 36 cells has 60 inner faces of 2 sides; a bisection to 1e-6 takes 20 queries, so 2400 without reuse.
    def grid(x: np.ndarray) -> np.ndarray:
        return np.searchsorted([0.11, 0.23, 0.47, 0.59, 0.83], x) @ np.array([1, 10])

    leaves = find_leaves(grid, [Continuous(0, 1)] * 2, checks=0)
    assert leaves.complete
    assert len(leaves.answers) == 36
    assert leaves.queries < 700


def test_a_bound_belongs_to_the_leaf_below_it() -> None:
    leaves = find_leaves(lambda x: np.searchsorted([0.2, 0.4, 0.6, 0.8], x[:, 0]), [Continuous(0, 1)])
    bounds = leaves.thresholds(0)
    assert leaves.high[leaves.predict(bounds[:, None])][:, 0].tolist() == bounds.tolist()
    assert leaves.answers[leaves.predict(np.array([[0.0], [1.0]]))].tolist() == [0, 4]


@pytest.mark.parametrize("budget", [1, 3, 100, 314])
def test_a_budget_too_small_is_said(budget: int) -> None:
    x, y = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=0).fit(x, y)
    query = Asked(lambda rows: tree.apply(rows.astype(np.float32)))
    leaves = find_leaves(query, ranges(x), budget=budget)
    assert not leaves.complete
    assert f"the budget of {budget} queries" in leaves.shortfall
    assert leaves.queries == len(query.rows) <= budget
    found = leaves.predict(x)
    known = found >= 0
    assert np.array_equal(leaves.answers[found[known]], tree.apply(x.astype(np.float32))[known])
    assert (leaves.coverage < 1 and not known.all()) or budget == 314  # only the checks were missing


def test_two_leaves_with_one_answer_are_not_passed_over_in_silence() -> None:
    # Both ends of the range give the answer of the middle: the boxes fill the range, and only the checks can tell.
    leaves = find_leaves(lambda x: (x[:, 0] > 0.6) & (x[:, 0] <= 0.8), [Continuous(0, 1)])
    assert leaves.coverage == 1
    assert "checks" in leaves.shortfall
    # Here a leaf that is no box leaves a hole, which needs no checks to be seen.
    swallowed = find_leaves(
        lambda x: np.where(x[:, 1] > 0.7, 3, (x[:, 0] > 0.6).astype(int) + (x[:, 0] > 0.8) * (x[:, 1] > 0.2)),
        [Continuous(0, 1)] * 2,
        checks=0,
    )
    assert "fill 0.96" in swallowed.shortfall


def test_what_is_no_tree_spends_the_budget() -> None:
    leaves = find_leaves(lambda x: x, [Continuous(0, 1)] * 2, budget=1000)
    assert not leaves.complete
    assert "budget of 1,000" in leaves.shortfall


def test_one_leaf_and_negative_zero() -> None:
    leaves = find_leaves(lambda x: np.where(x[:, 0] > 0.5, 0.0, -0.0), [Continuous(0, 1), Categorical(1)])
    assert leaves.complete
    assert len(leaves.answers) == 1
    assert leaves.predict(np.array([[5.0, 0.0], [-5.0, 0.0]])).tolist() == [0, 0]  # outside: as the nearest end


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: np.full(len(x), np.nan), "not finite"),
        (lambda x: np.zeros(len(x) + 1), "one row for each"),
        (lambda x: np.zeros((len(x), 1, 1)), "one row for each"),
    ],
)
def test_wrong_answers(answer: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_leaves(answer, [Continuous(0, 1)])


def test_wrong_arguments() -> None:
    def one(x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x))

    for settings, name in (({"tolerance": 0.0}, "tolerance"), ({"budget": 0}, "budget"), ({"checks": -1}, "checks")):
        with pytest.raises(ValueError, match=name):
            find_leaves(one, [Continuous(0, 1)], **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features is empty"):
        find_leaves(one, [])
    for low, high in ((1, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match="range"):
            Continuous(low, high)
    with pytest.raises(ValueError, match="categories"):
        Categorical(0)
    leaves = find_leaves(one, [Continuous(0, 1)])
    for x in (np.zeros(3), np.zeros((3, 2)), np.array([[np.nan]])):
        with pytest.raises(ValueError, match="records are"):
            leaves.predict(x)
