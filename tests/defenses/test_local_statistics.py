"""What records are standardised by: right figures, in one pass, and charged where they are of private records."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.preprocessing import StandardScaler

from defenses.mechanisms.local.preparation import Standardisation, clipped_statistics, public_statistics, raw_statistics

rng = np.random.default_rng(3)
X = rng.normal([5.0, -2.0, 0.0], [3.0, 0.1, 1.0], size=(500, 3))


class Silent:
    """A source of noise that draws zeros and keeps the scales that it was asked for."""

    def __init__(self) -> None:
        self.scales: list[npt.NDArray[np.float64]] = []

    def laplace(self, *, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        self.scales.append(scale)
        return np.zeros_like(scale)


def test_they_are_those_of_scikit_learn_with_values_missing() -> None:
    holes = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    expected = StandardScaler().fit(holes)
    for found in (public_statistics(holes), raw_statistics([holes[:7], holes[7:300], holes[300:]])):
        np.testing.assert_allclose(found.shift, expected.mean_)
        np.testing.assert_allclose(found.scale, expected.scale_)
    assert public_statistics(holes).epsilon == 0
    assert raw_statistics([holes]).epsilon == np.inf


def test_a_constant_feature_is_shifted_and_not_scaled() -> None:
    found = public_statistics([[1.0, 1e9], [1.0, 1e9]])
    np.testing.assert_array_equal(found.scale, [1.0, 1.0])
    np.testing.assert_array_equal(found.apply_to(np.array([[2.0, np.nan]])), [[1.0, 0.0]])


def test_clipped_statistics_come_near_with_much_budget_and_stay_in_range_with_little() -> None:
    middle = np.clip(X, [-4, -3, -4], [14, -1, 4])
    near = clipped_statistics([X[:100], X[100:]], low=[-4, -3, -4], high=[14, -1, 4], epsilon=1e6, rng=rng)
    np.testing.assert_allclose(near.shift, middle.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(near.scale, middle.std(0), rtol=1e-2)
    for _ in range(50):
        far = clipped_statistics([X], low=[-4, -3, -4], high=[14, -1, 4], epsilon=1e-3, rng=rng)
        assert (far.shift >= [-4, -3, -4]).all()
        assert (far.shift <= [14, -1, 4]).all()
        assert (far.scale > 0).all()
        assert far.epsilon == 1e-3


def test_one_record_moves_clipped_statistics_by_no_more_than_epsilon() -> None:
    """Brute force: every pair of neighbours on a grid, in units of the noise that each sum gets."""
    values = (-9.0, 0.0, 1.0, 2.0, 99.0, np.nan)
    base = np.array([[0.0, 2.0], [2.0, 0.5], [1.0, 1.0]])
    sums = []
    silent = Silent()
    for record in itertools.product(values, repeat=2):
        rows = np.vstack([base, record])
        found = clipped_statistics([rows], low=0.0, high=2.0, epsilon=0.7, rng=silent)  # type: ignore[arg-type]
        mean = found.shift - 1.0
        sums.append(np.concatenate([4 * mean, 4 * (np.square(found.scale) + np.square(mean))]))
    scales = np.concatenate(silent.scales[:2])
    table = np.array(sums)
    cost = (np.abs(table[:, None] - table[None]) / scales).sum(-1)
    # The worst is from an end to the middle: half of what its sum is scaled to, and all of what its square is.
    assert cost.max() == pytest.approx(0.75 * 0.7)


@pytest.mark.parametrize("gather", [lambda x: public_statistics(x), lambda x: raw_statistics([x])])
def test_what_has_no_statistics_is_refused(gather: object) -> None:
    assert callable(gather)
    with pytest.raises(ValueError, match="feature 1 is missing in all records"):
        gather([[1.0, np.nan], [2.0, np.nan]])
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        gather([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -1.0}, "epsilon of the statistics is -1.0"),
        ({"epsilon": np.inf}, "above 0 and finite"),
        ({"low": 1.0, "high": 1.0}, "low below high"),
        ({"low": -np.inf}, "finite public range"),
    ],
)
def test_clipped_statistics_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    given = {"low": 0.0, "high": 1.0, "epsilon": 1.0} | options
    with pytest.raises(ValueError, match=message):
        clipped_statistics([X], **given)  # type: ignore[arg-type]


def test_no_records_and_columns_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no records"):
        clipped_statistics([], low=0.0, high=1.0, epsilon=1.0)
    with pytest.raises(ValueError, match="feature 0 is missing"):
        clipped_statistics([[[np.nan, 1.0]]], low=0.0, high=1.0, epsilon=1.0)
    with pytest.raises(ValueError, match="2 features; 3 are expected"):
        raw_statistics([X, X[:, :2]])


def test_a_standardisation_that_has_no_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="scale not above 0"):
        Standardisation(np.zeros(1), np.zeros(1), "a test")
    with pytest.raises(ValueError, match="one of each per feature"):
        Standardisation(np.zeros(2), np.ones(1), "a test")
