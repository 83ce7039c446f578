"""Signals straight from logits, in float64, where naive formulas overflow."""

import numpy as np
import pytest
from scipy.special import logsumexp

from attacks.membership.signals import log_probability, logit_confidence, probability


def test_against_the_naive_formula_where_it_is_safe() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(50, 7)), rng.integers(0, 7, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = p[np.arange(50), y]
    assert np.allclose(probability(logits, y), true, rtol=1e-12)
    assert np.allclose(log_probability(logits, y), np.log(true), rtol=1e-12)
    assert np.allclose(logit_confidence(logits, y), np.log(true / (1 - true)), rtol=1e-9)


def test_confident_models_stay_finite_and_ordered() -> None:
    margins = np.array([10.0, 50.0, 300.0, 5000.0])
    logits = np.stack([np.array([m, 0.0, -1.0]) for m in margins]).astype(np.float32)
    found = logit_confidence(logits, np.zeros(4, dtype=int))
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert found[2] == pytest.approx(300 - np.log1p(np.exp(-1.0)))
    assert np.isfinite(logit_confidence(-logits, np.zeros(4, dtype=int))).all()


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_against_scipy_at_any_scale(scale: float) -> None:
    rng = np.random.default_rng(1)
    logits, y = rng.normal(scale=scale, size=(4, 30, 10)), rng.integers(0, 10, 30)
    logits[0, :, :2] = logits[0, :, 2:3]  # ties
    before = logits.copy()
    true = np.take_along_axis(logits, np.broadcast_to(y, (4, 30))[..., None], axis=-1)[..., 0]
    others = np.where(np.arange(10) == y[:, None], -np.inf, logits)
    assert np.allclose(log_probability(logits, y), true - logsumexp(logits, axis=-1), rtol=1e-12, atol=1e-12)
    assert np.allclose(logit_confidence(logits, y), true - logsumexp(others, axis=-1), rtol=1e-12, atol=1e-12)
    assert np.array_equal(logits, before)


def test_an_infinite_logit_stays_infinite() -> None:
    logits = np.array([[np.inf, 0.0, 1.0], [-np.inf, 0.0, 1.0]])
    assert log_probability(logits, np.array([1, 0])).tolist() == [-np.inf, -np.inf]
    assert logit_confidence(logits, np.array([0, 0])).tolist() == [np.inf, -np.inf]


def test_no_records_have_no_signals() -> None:
    assert log_probability(np.empty((0, 0)), np.empty(0)).shape == (0,)
    assert logit_confidence(np.empty((0, 3)), np.empty(0)).shape == (0,)


def test_many_models_share_one_set_of_labels() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(3, 50, 7)), rng.integers(0, 7, 50)
    together = logit_confidence(logits, y)
    assert together.shape == (3, 50)
    assert np.array_equal(together[1], logit_confidence(logits[1], y))


def test_bad_labels_and_single_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        logit_confidence(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match="at least 2"):
        logit_confidence(np.zeros((2, 1)), np.array([0, 0]))
