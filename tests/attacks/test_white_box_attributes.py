"""Posteriors of a hidden attribute from margins and from leaf counts, against brute force and ART."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from attacks.inference.white_box_attributes import linear_posterior, reachable, tree_posterior

BLOCK = slice(2, 5)  # three values, one-hot, between four other bits


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records (n, 7) with a one-hot attribute in the middle, labels that depend on it, and the attribute."""
    rng = np.random.default_rng(seed)
    bits, value = rng.integers(0, 2, (count, 4)), rng.choice(3, count, p=[0.5, 0.3, 0.2])
    label = np.where(rng.random(count) < 0.2, rng.integers(0, 3, count), (bits[:, 0] + value) % 3)
    x = np.column_stack([bits[:, :2], np.eye(3)[value], bits[:, 2:]]).astype(np.float32)
    return x, label, value


@pytest.mark.parametrize("prior", [np.array([5.0, 3.0, 2.0]), np.random.default_rng(0).random((50, 3))])
def test_margins_give_the_posterior_of_the_filled_in_records(prior: np.ndarray) -> None:
    x, label, _ = rows(50)
    layer = torch.nn.Linear(7, 3, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=3.0, generator=torch.Generator().manual_seed(0))
    said = []
    for option in np.eye(3):
        filled = torch.from_numpy(x.astype(np.float64))
        filled[:, BLOCK] = torch.from_numpy(option)
        said.append(torch.softmax(layer(filled), dim=1).detach().numpy()[np.arange(50), label])
    expected = np.stack(said, axis=1) * prior
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    found = linear_posterior(weight, bias, x, label, at=BLOCK, values=np.eye(3), prior=prior)
    assert np.allclose(found, expected / expected.sum(axis=1, keepdims=True))


def test_one_margin_is_that_of_two_classes() -> None:
    x, label, _ = rows(200)
    learner = LogisticRegression().fit(x, label > 0)
    assert learner.coef_.shape == (1, 7)
    known = {"at": BLOCK, "values": np.eye(3), "prior": np.ones(3)}
    one = linear_posterior(learner.coef_, learner.intercept_, x, (label > 0).astype(int), **known)
    said = []
    for option in np.eye(3):
        filled = x.copy()
        filled[:, BLOCK] = option
        said.append(learner.predict_proba(filled)[np.arange(200), (label > 0).astype(int)])
    expected = np.stack(said, axis=1)
    assert np.allclose(one, expected / expected.sum(axis=1, keepdims=True))


def test_margins_beyond_what_exp_holds_stay_finite() -> None:
    known = {"at": slice(1, 2), "values": [[0.0], [1.0]], "prior": [0.5, 0.5]}
    found = linear_posterior([[0.0, 0.0], [0.0, 4000.0]], [0.0, -2000.0], [[1.0, 0.0]], np.array([1]), **known)
    assert np.allclose(found, [[0.0, 1.0]])


def test_a_tree_with_a_leaf_for_every_record_counts_records() -> None:
    # Every leaf holds one combination of all columns, so counts are those of the training records themselves.
    x, label, value = rows(3000)
    tree = DecisionTreeClassifier(random_state=0).fit(x, label)
    combinations = np.array(list(itertools.product([0, 1], repeat=4)))
    asked = np.column_stack([combinations[:, :2], np.zeros((16, 3)), combinations[:, 2:]])
    prior = np.bincount(value) / 3000
    same = (x[:, None, [0, 1, 5, 6]] == combinations[None]).all(axis=2)  # (n, 16)
    for y in (None, np.arange(16) % 3):
        counted = same if y is None else same & (label[:, None] == y)
        expected = np.stack([counted[value == v].sum(axis=0) for v in range(3)], axis=1)
        found = tree_posterior(tree, asked, at=BLOCK, values=np.eye(3), prior=prior, y=y)
        assert np.allclose(found, expected / expected.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_the_leaves_that_a_value_reaches_are_those_of_all_records_with_it(depth: int) -> None:
    x, label, _ = rows(400)
    tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(x, label)
    for option in np.eye(3):
        every = np.array([[*bits[:2], *option, *bits[2:]] for bits in itertools.product([0, 1], repeat=4)])
        assert set(np.flatnonzero(reachable(tree, at=BLOCK, value=option))) == set(tree.apply(every))


def test_where_no_leaf_holds_the_label_the_prior_stays() -> None:
    x, _, _ = rows(100)
    tree = DecisionTreeClassifier(random_state=0).fit(x[:, :2], x[:, 0])
    found = tree_posterior(tree, [[0, 0]], at=slice(1, 2), values=[[0], [1]], prior=[0.2, 0.8], y=np.array([1]))
    assert np.allclose(found, [[0.2, 0.8]])


@pytest.mark.parametrize("learner", [DecisionTreeClassifier, DecisionTreeRegressor])
@pytest.mark.parametrize("depth", [3, None])
def test_on_the_training_records_the_counts_are_those_of_art(learner: type, depth: int | None) -> None:
    # There every leaf is reached by a record under attack, which is what ART takes for all leaves.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.inference.attribute_inference import AttributeInferenceWhiteBoxLifestyleDecisionTree
        from art.estimators.classification.scikitlearn import ScikitlearnDecisionTreeClassifier
        from art.estimators.regression.scikitlearn import ScikitlearnDecisionTreeRegressor

    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 3, 300), rng.integers(0, 2, 300), rng.random(300)]).astype(np.float32)
    tree = learner(max_depth=depth, random_state=0).fit(x, (x[:, 0] + x[:, 1] > rng.random(300) * 3).astype(int))
    classifies = learner is DecisionTreeClassifier
    wrapped = (ScikitlearnDecisionTreeClassifier if classifies else ScikitlearnDecisionTreeRegressor)(tree)
    prior = [0.55, 0.45]
    theirs = AttributeInferenceWhiteBoxLifestyleDecisionTree(wrapped, attack_feature=1)
    guesses = theirs.infer(np.delete(x, 1, axis=1), values=[0.0, 1.0], priors=prior)
    ours = tree_posterior(tree, x, at=slice(1, 2), values=[[0.0], [1.0]], prior=prior)
    sure = np.abs(ours[:, 0] - 0.5) > 1e-9
    assert sure.mean() > 0.9
    assert np.array_equal(ours.argmax(axis=1)[sure], guesses[sure].astype(int))
    assert 0 < guesses.mean() < 1
    alone = tree_posterior(tree, x[:1], at=slice(1, 2), values=[[0.0], [1.0]], prior=prior)
    assert np.allclose(alone, ours[:1])  # who else is attacked changes nothing


def test_a_tree_that_knows_its_records_gives_the_attribute_away() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 2, 600), rng.random((600, 2))]).astype(np.float32)
    label = (x[:, 0].astype(int) + rng.integers(0, 2, 600)) % 2  # a coin for who does not know the records
    members = np.arange(600) < 300
    tree = DecisionTreeClassifier(random_state=0).fit(x[members], label[members])
    found = tree_posterior(tree, x, at=slice(0, 1), values=[[0.0], [1.0]], prior=[0.5, 0.5], y=label).argmax(axis=1)
    right = found == x[:, 0]
    assert right[members].mean() > 0.55
    assert right[~members].mean() < 0.52


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 6))}, "records have shape"),
        ({"values": np.eye(2)}, "values have shape"),
        ({"prior": np.array([0.5, 0.5])}, "prior has shape"),
        ({"prior": np.zeros(3)}, "nothing but 0"),
        ({"prior": np.array([0.5, -0.1, 0.6])}, "negative"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    given = {"x": np.zeros((2, 7)), "at": BLOCK, "values": np.eye(3), "prior": np.ones(3)} | change
    with pytest.raises(ValueError, match=message):
        linear_posterior(np.zeros((3, 7)), np.zeros(3), y=np.zeros(2, dtype=np.int64), **given)  # type: ignore[arg-type]
    x, label, _ = rows(50)
    tree = DecisionTreeClassifier(max_depth=2).fit(x, label)
    with pytest.raises(ValueError, match=message):
        tree_posterior(tree, **given)  # type: ignore[arg-type]
