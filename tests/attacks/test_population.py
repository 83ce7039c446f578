"""The population attack against counting by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.membership.population import Population, population_scores


def test_shares_are_counted_within_the_class_or_over_all() -> None:
    rng = np.random.default_rng(0)
    signal, y = np.round(rng.normal(size=80), 1), rng.integers(0, 4, 80)
    population, labels = np.round(rng.normal(size=50), 1), rng.choice(3, 50, p=[0.6, 0.35, 0.05])
    found = population_scores(signal, y, population, labels, smallest=8)
    assert (np.bincount(labels) >= 8).tolist() == [True, True, False]  # two classes alone, one too small, one missing
    for score, value, label in zip(found, signal, y, strict=True):
        against = population[labels == label] if label < 2 else population
        share = sum(other < value for other in against) / len(against)
        assert share <= score < share + 1 / 50


def test_equal_shares_are_ordered_by_the_signal() -> None:
    signal = np.array([7.0, 5.0, 9.0, 5.0])
    found = population_scores(signal, np.zeros(4), np.arange(4.0), np.zeros(4), smallest=1)
    assert found[2] > found[0] > found[1] == found[3]


def test_pooled_it_ranks_as_the_signal_does_and_by_class_better_where_classes_differ() -> None:
    rng = np.random.default_rng(1)
    y, labels = rng.integers(0, 5, 2000), rng.integers(0, 5, 1000)
    truth = rng.random(2000) < 0.5
    signal, population = 4 * y + truth + rng.normal(size=2000), 4 * labels + rng.normal(size=1000)
    pooled = population_scores(signal, y, population, labels, smallest=1001)
    assert np.array_equal(pooled.argsort(), signal.argsort())
    by_class = population_scores(signal, y, population, labels)
    assert roc_auc_score(truth, by_class) > roc_auc_score(truth, pooled) + 0.1


def test_non_members_of_every_class_get_uniform_shares() -> None:
    # One minus the share is a p-value: a class that the model fits better must not look like members.
    rng = np.random.default_rng(2)
    y, labels = rng.integers(0, 3, 3000), rng.integers(0, 3, 3000)
    found = population_scores(9.0 * y + rng.normal(size=3000), y, 9.0 * labels + rng.normal(size=3000), labels)
    for label in range(3):
        assert abs(np.mean(found[y == label] > 0.9) - 0.1) < 0.04


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.zeros(1)
    with pytest.raises(ValueError, match="at least one population record"):
        population_scores(one, one, np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="smallest is 0"):
        Population(smallest=0)
