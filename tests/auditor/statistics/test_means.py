"""Limits on bounded means: they cover whatever the shape, and narrow with the number of values."""

import numpy as np
import pytest
from scipy import stats

from auditor.evidence.mean_similarity import mean_similarity, similarity_gap
from auditor.evidence.reconstruction_comparison import Nearest, Paired, Reconstructed
from auditor.evidence.record_leakage import record_leakage
from auditor.statistics.means import bounded_mean


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_rare_large_values_are_covered(share: float) -> None:
    """Where a few of many values are large, Student's interval misses far too often."""
    rng, missed, students = np.random.default_rng(0), 0, 0
    tries = 150
    for _ in range(tries):
        values = (rng.random(40) < share).astype(float)
        _, low, high = bounded_mean(values, bounds=(0.0, 1.0), error=0.1)
        missed += not low <= share <= high
        spread = values.std(ddof=1) / np.sqrt(len(values)) * stats.t.ppf(0.95, len(values) - 1)
        students += abs(values.mean() - share) > spread
    assert missed <= stats.binom.ppf(0.999, tries, 0.1)
    if share < 0.1:
        assert students > missed + 10


def test_it_narrows_and_scales() -> None:
    rng = np.random.default_rng(1)
    values = rng.beta(2, 8, 1000)
    widths = []
    for count in (50, 200, 1000):
        mean, low, high = bounded_mean(values[:count], bounds=(0.0, 1.0), error=0.1)
        assert low < mean < high
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]
    mean, low, high = bounded_mean(values, bounds=(0.0, 1.0), error=0.1)
    moved = bounded_mean(2 * values - 1, bounds=(-1.0, 1.0), error=0.1)
    assert moved == pytest.approx((2 * mean - 1, 2 * low - 1, 2 * high - 1))
    assert (high - low) < 2.5 * 2 * stats.norm.ppf(0.95) * values.std() / np.sqrt(1000)


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [float("nan")]])
def test_values_outside_their_range_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="true range"):
        bounded_mean(values, bounds=(0.0, 1.0), error=0.1)


def _found(paired: Paired | None, bounds: tuple[float, float] | None = (-1.0, 1.0)) -> Reconstructed:
    alike = np.zeros((2, 2))
    leakage = record_leakage(alike, alike, rng=np.random.default_rng(0), permutations=1)
    nearest = Nearest(np.zeros(2, np.int64), np.zeros(2))
    return Reconstructed(2, "structural similarity", np.zeros(4), leakage, None, nearest, nearest, 0.5, paired, bounds)


def test_mean_similarity_is_to_the_record_behind_where_that_is_known() -> None:
    included = np.arange(200) < 100
    closest = np.where(included, 0.6, 0.2)
    paired = Paired(np.arange(50), np.full(50, 0.9), np.full(50, 0.3))
    assert mean_similarity(_found(None), closest, included, level=0.9, unit="record").value == pytest.approx(0.6)
    known = mean_similarity(_found(paired), closest, included, level=0.9, unit="record")
    assert (known.value, known.n) == (pytest.approx(0.9), 50)
    assert similarity_gap(_found(None), closest, included, level=0.9, unit="record").value == pytest.approx(0.4)
    gap = similarity_gap(_found(paired), closest, included, level=0.9, unit="record")
    assert gap.value == pytest.approx(0.6)
    assert gap.low is not None
    assert gap.low > 0


def test_records_without_rivals_are_left_out_and_an_endless_measure_has_no_mean() -> None:
    included = np.arange(200) < 100
    others = np.where(np.arange(50) < 10, -np.inf, 0.3)
    paired = Paired(np.arange(50), np.full(50, 0.9), others)
    gap = similarity_gap(_found(paired), np.zeros(200), included, level=0.9, unit="record")
    assert (gap.value, gap.n) == (pytest.approx(0.6), 40)
    none = similarity_gap(
        _found(Paired(np.arange(2), np.zeros(2), np.full(2, -np.inf))),
        np.zeros(200),
        included,
        level=0.9,
        unit="record",
    )
    assert none.value is None
    for measure in (mean_similarity, similarity_gap):
        endless = measure(_found(None, None), np.zeros(200), included, level=0.9, unit="record")
        assert endless.value is None
        assert "largest" in (endless.reason or "")
