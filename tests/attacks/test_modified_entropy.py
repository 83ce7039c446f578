"""Modified entropy against the formula as printed, in as many digits as it needs."""

import mpmath
import numpy as np
import pytest

from attacks.membership.modified_entropy import centred_by_class, log_modified_entropy
from attacks.membership.signals import log_probability


def printed(logits: np.ndarray, y: int) -> float:
    """The definition, in 3,000 digits: certainty of one part in 10^1300 is still not one."""
    with mpmath.workdps(3000):
        powers = [mpmath.exp(mpmath.mpf(float(value))) for value in logits]
        p = [power / sum(powers) for power in powers]
        entropy = -(1 - p[y]) * mpmath.log(p[y])
        entropy -= sum(p[i] * mpmath.log(1 - p[i]) for i in range(len(p)) if i != y)
        return float(mpmath.log(entropy))


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_equals_the_definition(scale: float, classes: int) -> None:
    rng = np.random.default_rng(0)
    logits, y = scale * rng.normal(size=(30, classes)), rng.integers(0, classes, 30)
    expected = [printed(row, label) for row, label in zip(logits, y, strict=True)]
    assert np.allclose(log_modified_entropy(logits, y), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "logits",
    [[800.0, 0.0, -1.0], [0.0, 1500.0, 0.0], [700.0, 700.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 900.0], [1e-9, 0.0, 0.0]],
)
def test_certainty_right_or_wrong_has_all_its_digits(logits: list[float]) -> None:
    found = log_modified_entropy(np.array([logits]), np.array([0]))
    assert np.allclose(found, printed(np.array(logits), 0), rtol=1e-12, atol=1e-12)


def test_confident_records_keep_their_order() -> None:
    # In the probabilities themselves all of these are certain, and their entropy is zero.
    margins = np.array([40.0, 50.0, 400.0, 5000.0])
    logits = np.stack([np.array([margin, 0.0, -1.0]) for margin in margins]).astype(np.float32)
    assert np.all(np.diff(log_modified_entropy(logits, np.zeros(4, dtype=int))) < 0)


def test_it_is_not_the_loss_ranking() -> None:
    # Equal loss; the second model is sure of one wrong class, and that counts against it.
    p = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [0.2, 0.8 - 3e-3, 1e-3, 1e-3, 1e-3]])
    y = np.zeros(2, dtype=int)
    assert np.allclose(*log_probability(np.log(p), y))
    spread, sure = log_modified_entropy(np.log(p), y)
    assert sure > spread + 0.1


def test_classes_are_centred_on_the_population_and_small_ones_on_all_of_it() -> None:
    population, labels = np.array([1.0, 3.0, 10.0, 30.0, 100.0]), np.array([0, 0, 1, 1, 2])
    scores, y = np.array([2.0, 20.0, 0.0, 0.0]), np.array([0, 1, 2, 3])
    found = centred_by_class(scores, y, population, labels, smallest=2)
    assert np.allclose(found, [0.0, 0.0, -28.8, -28.8])


def test_a_label_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="labels reach"):
        log_modified_entropy(np.zeros((1, 3)), np.array([3]))
