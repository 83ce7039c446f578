"""Differences of shares: intervals cover, and agree with closed forms."""

import numpy as np
import pytest
from scipy import stats

from auditor.statistics.paired_differences import gap, paired_difference, paired_estimate, share_estimate


@pytest.mark.parametrize(("first_alone", "second_alone"), [(0.1, 0.1), (0.3, 0.05), (0.01, 0.0), (0.5, 0.4)])
@pytest.mark.parametrize("n", [20, 200])
def test_the_paired_interval_covers(first_alone: float, second_alone: float, n: int) -> None:
    rng, truth, missed = np.random.default_rng(0), first_alone - second_alone, 0
    for _ in range(400):
        kind = rng.random(n)
        first = (kind < first_alone).astype(float)
        second = ((kind >= first_alone) & (kind < first_alone + second_alone)).astype(float)
        both = (kind > 0.95).astype(float)  # where both are right nothing is learnt of the difference
        (_, low, high), _ = paired_difference(first + both, second + both, level=0.9)
        missed += not low <= truth <= high
    assert missed <= 0.1 * 400


def test_the_interval_over_groups_covers() -> None:
    rng, missed = np.random.default_rng(1), 0
    for _ in range(400):
        first, second = rng.binomial(4, 0.6, 300) / 4, rng.binomial(4, 0.5, 300) / 4
        (_, low, high), method = paired_difference(first, second, level=0.9)
        missed += not low <= 0.1 <= high
        assert "Bernstein" in method
        assert high - low < 0.5
    assert missed <= 0.1 * 400


def test_what_both_get_right_does_not_widen_the_interval() -> None:
    first, second = np.ones(1000), np.ones(1000)
    (value, low, high), _ = paired_difference(first, second, level=0.95)
    assert value == 0
    assert -0.01 < low < 0 < high < 0.01


def test_the_gap_pays_for_both_of_its_intervals() -> None:
    rng, missed = np.random.default_rng(2), 0
    for _ in range(300):
        halves = [
            paired_estimate(rng.binomial(1, p, 80).astype(float), np.zeros(80), level=0.95, unit="record")
            for p in (0.5, 0.3)
        ]
        found = gap(*halves, level=0.9)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0.2 <= found.high
    assert missed <= 0.1 * 300


def test_no_unit_gives_a_reason_and_bad_values_an_error() -> None:
    nothing = paired_estimate(np.zeros(0), np.zeros(0), level=0.95, unit="record")
    assert nothing.value is None
    assert nothing.reason == "no record to compare on"
    assert gap(nothing, nothing, level=0.95).value is None
    with pytest.raises(ValueError, match="outside"):
        paired_difference(np.array([2.0]), np.array([0.0]), level=0.95)
    with pytest.raises(ValueError, match="shapes"):
        paired_difference(np.zeros(3), np.zeros(2), level=0.95)


def test_a_share_is_clopper_pearson_over_records_and_never_below_nothing() -> None:
    found = share_estimate(np.ones(64), level=0.95, unit="record")
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 64, 1))
    few = share_estimate(np.ones(4), level=0.95, unit="record")
    assert few.low == pytest.approx(stats.beta.ppf(0.025, 4, 1))
    grouped = share_estimate(np.array([0.5, 1.0, 0.25]), level=0.95, unit="group")
    assert grouped.low == 0
    assert grouped.high == 1
    assert share_estimate(np.zeros(0), level=0.95, unit="record").value is None
