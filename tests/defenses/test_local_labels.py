"""Randomised labels: the law, its price by an independent library, and frequencies without bias."""

import math

import numpy as np
import opendp.prelude as opendp
import pytest
from scipy import stats

from defenses.mechanisms.local.labels import debias, keep_probability, randomise_labels


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (1.0, 3), (4.0, 10)])
def test_it_costs_what_opendp_says(epsilon: float, classes: int) -> None:
    opendp.enable_features("contrib")
    keep = keep_probability(epsilon, classes)
    response = opendp.m.make_randomized_response(categories=list(range(classes)), prob=keep)
    assert response.map(1) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_stay_or_become_any_other_alike(classes: int) -> None:
    found = randomise_labels(np.full(20000, 1), epsilon=1.0, classes=classes, rng=np.random.default_rng(0))
    keep = math.exp(1) / (math.exp(1) + classes - 1)
    expected = np.full(classes, 20000 * (1 - keep) / (classes - 1))
    expected[1] = 20000 * keep
    assert stats.chisquare(np.bincount(found, minlength=classes), expected).pvalue > 0.01


def test_frequencies_come_back_without_bias() -> None:
    y = np.repeat([0, 1, 2], [5000, 3000, 2000])
    rng = np.random.default_rng(1)
    found = [
        debias(np.bincount(randomise_labels(y, epsilon=1.0, classes=3, rng=rng)) / len(y), epsilon=1.0, classes=3)
        for _ in range(200)
    ]
    spread = np.std(found, axis=0) / math.sqrt(200)
    assert (np.abs(np.mean(found, axis=0) - [0.5, 0.3, 0.2]) < 4 * spread).all()
    assert np.sum(found, axis=1) == pytest.approx(1.0)


def test_the_likeliest_label_stays_the_likeliest() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(4), size=300)
    keep = keep_probability(0.3, 4)
    blurred = probabilities * keep + (1 - probabilities) * (1 - keep) / 3
    np.testing.assert_array_equal(blurred.argmax(1), probabilities.argmax(1))
    np.testing.assert_allclose(debias(blurred, epsilon=0.3, classes=4), probabilities, atol=1e-12)


def test_frequencies_of_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each of 3 labels"):
        debias([0.5, 0.5], epsilon=1.0, classes=3)
