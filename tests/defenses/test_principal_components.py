"""Principal components against scikit-learn's, and the private ones' sensitivity and noise by brute force."""

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from defenses.mechanisms import principal_components
from defenses.mechanisms.principal_components import fit, fit_once, fit_privately, second_moments
from defenses.records import Image, Records

rng = np.random.default_rng(3)
MIXED = rng.normal(size=(200, 12)) * np.linspace(5, 0.2, 12) @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 3
X = MIXED.reshape(200, 3, 2, 2).astype(np.float32)


@pytest.mark.parametrize("components", [1, 4, 12])
def test_public_components_span_the_subspace_of_scikit_learn(components: int) -> None:
    theirs = PCA(components, svd_solver="full").fit(X.reshape(200, -1).astype(np.float64))
    ours = fit(X, components)
    np.testing.assert_allclose(ours.center, theirs.mean_, rtol=1e-6)
    np.testing.assert_allclose(ours.basis @ ours.basis.T, np.eye(components), atol=1e-10)
    np.testing.assert_allclose(np.abs(ours.basis @ theirs.components_.T), np.eye(components), atol=1e-8)
    assert (ours.basis[np.arange(components), np.abs(ours.basis).argmax(1)] > 0).all()


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, moments = fit(X, 5), second_moments(X, row_norm=2.0)
    monkeypatch.setattr(principal_components, "_ROWS", 7)
    np.testing.assert_allclose(fit(X, 5).basis, whole.basis, atol=1e-10)
    np.testing.assert_allclose(second_moments(X, row_norm=2.0), moments, rtol=1e-10)


def test_what_models_share_is_fitted_once_and_other_records_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.zeros(200, dtype=np.int64)
    one, same, other = (Records(x, y, 1, Image()) for x in (X, X.copy(), X[::-1] * 2))
    first = fit_once(one, 3)
    np.testing.assert_array_equal(first.basis, fit(X, 3).basis)
    np.testing.assert_array_equal(fit_once(other, 3).center, fit(X[::-1] * 2, 3).center)
    monkeypatch.setattr(principal_components, "fit", lambda *_: pytest.fail("was fitted again"))
    assert fit_once(same, 3) is first


def test_no_record_moves_the_second_moments_by_more_than_its_squared_norm() -> None:
    """Over a few records, long and short, dense and along one axis; a row along an axis attains the bound."""
    row_norm = 1.5
    rows = [*rng.normal(size=(30, 4)) * 10, *rng.normal(size=(10, 4)) * 0.1, *(100 * np.eye(4)), np.zeros(4)]
    base = rng.normal(size=(5, 4)).astype(np.float32)
    upper = np.triu_indices(4)
    without = second_moments(base, row_norm=row_norm)[upper]
    moved = []
    for row in rows:
        with_it = second_moments(np.vstack([base, row]).astype(np.float32), row_norm=row_norm)[upper]
        moved.append(np.linalg.norm(with_it - without))
    assert max(moved) <= row_norm**2 * (1 + 1e-6)
    assert max(moved) == pytest.approx(row_norm**2, rel=1e-6)
    assert moved[-1] == 0


def test_rows_that_are_short_enough_stay_as_they_are() -> None:
    flat = X.reshape(200, -1).astype(np.float64)
    np.testing.assert_allclose(second_moments(X, row_norm=1e3), flat.T @ flat, rtol=1e-9)


def test_private_components_carry_symmetric_gaussian_noise_of_the_stated_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(principal_components, "_leading", lambda matrix, components: seen.append(matrix) or matrix[:1])
    for seed in range(60):
        fit_privately(X, 1, row_norm=2.0, noise_multiplier=3.0, rng=np.random.default_rng(seed))
    noise = np.stack(seen) - second_moments(X, row_norm=2.0)
    np.testing.assert_array_equal(noise, noise.transpose(0, 2, 1))
    upper = np.triu_indices(12)
    drawn = noise[:, upper[0], upper[1]]
    assert stats.kstest(drawn.ravel() / (3.0 * 2.0**2), "norm").pvalue > 0.01
    correlations = np.corrcoef(drawn.T) - np.eye(len(upper[0]))
    assert np.abs(correlations).max() < 6 / np.sqrt(60)


def test_with_many_records_the_private_directions_are_those_without_noise() -> None:
    many = np.tile(X, (200, 1, 1, 1))
    clipped = second_moments(many, row_norm=1.0)
    exact = np.linalg.eigh(clipped)[1][:, ::-1].T[:2]
    found = fit_privately(many, 2, row_norm=1.0, noise_multiplier=1.0, rng=np.random.default_rng(0))
    assert np.linalg.norm(found.basis @ exact.T) ** 2 > 1.99  # of 2 where the planes are one
    np.testing.assert_array_equal(found.center, np.zeros(12))


@pytest.mark.parametrize("components", [0, 13])
def test_more_directions_than_there_are_features_are_refused(components: int) -> None:
    with pytest.raises(ValueError, match=f"components is {components}; .* 1 to 12"):
        fit(X, components)
    with pytest.raises(ValueError, match=f"components is {components}; .* 1 to 12"):
        fit_privately(X, components, row_norm=1.0, noise_multiplier=1.0, rng=rng)
    with pytest.raises(ValueError, match=r"3 records of 12 features have 1 to 3"):
        fit(X[:3], 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"row_norm": 0.0}, "row_norm is 0"), ({"noise_multiplier": 0.0}, "noise_multiplier is 0"),
     ({"noise_multiplier": float("nan")}, "noise_multiplier is nan"), ({"row_norm": -1.0}, "row_norm is -1")],
)  # fmt: skip
def test_values_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_privately(X, 2, **({"row_norm": 1.0, "noise_multiplier": 1.0} | change), rng=rng)
