"""Noise at the source: its scale and law, what one record can move, and streams that are the whole in parts."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

from defenses.mechanisms.local.noise import STEPS, laplace_on_grid
from defenses.mechanisms.local.preparation import Missing, Standardisation, check_rows, public_statistics
from defenses.mechanisms.local.privatize import Source, privatize, privatize_chunks
from defenses.modes import Mode

KNOWN = Standardisation(np.array([10.0, -1.0, 0.0]), np.array([2.0, 0.5, 1.0]), "a test")
EXTREMES = (-1e9, 4.0, 10.0, 16.5, 1e9, np.nan)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_each_feature_has_laplace_noise_of_its_share() -> None:
    source = Source(standardisation=KNOWN, epsilon=6.0, bound=2.0)
    assert source.scale == 2 * 2.0 / (6.0 / 3)
    x = np.tile([10.0, -1.5, 40.0], (4000, 1))
    noised, _ = privatize(x, source=source, rng=rng())
    for column, mean in enumerate([0.0, -1.0, 2.0]):  # the last one is clipped to the bound
        assert stats.kstest(noised[:, column], "laplace", args=(mean, 2.0)).pvalue > 0.01
    correlated = np.corrcoef(noised.T) - np.eye(3)
    assert np.abs(correlated).max() < 0.06  # each feature has noise of its own


def test_literal_noise_is_that_of_one_feature_on_values_that_nothing_clips() -> None:
    source = Source(standardisation=KNOWN, epsilon=6.0, bound=2.0, mode=Mode.LITERAL)
    noised, _ = privatize(np.tile([10.0, -1.5, 40.0], (4000, 1)), source=source, rng=rng())
    for column, mean in enumerate([0.0, -1.0, 40.0]):
        assert stats.kstest(noised[:, column], "laplace", args=(mean, 2 * 2.0 / 6.0)).pvalue > 0.01
    assert source.cost == np.inf


def test_the_worst_record_moves_the_noise_by_epsilon_and_none_by_more() -> None:
    """Brute force over all pairs of records with extreme and missing values."""
    quiet = Source(standardisation=KNOWN, bound=2.0)
    rows = np.array(list(itertools.product(EXTREMES, repeat=3)))
    clipped, _ = privatize(rows, source=quiet, rng=rng())
    source = Source(standardisation=KNOWN, epsilon=6.0, bound=2.0)
    apart = np.abs(clipped[:, None] - clipped[None]).sum(-1) / source.scale
    assert apart.max() == pytest.approx(6.0)
    literal, _ = privatize(rows, source=Source(standardisation=KNOWN, bound=2.0, mode=Mode.LITERAL), rng=rng())
    assert np.abs(literal[:, None] - literal[None]).sum(-1).max() > 1e8


def test_the_grid_noise_is_the_discrete_laplace_law() -> None:
    """Against scipy's, at a scale of two steps; and the values are multiples of the step."""
    step = 1.0 / STEPS
    noised = laplace_on_grid(np.full((20000, 1), 0.5), bound=1.0, scale=2 * step, rng=rng()) / step
    whole = np.rint(noised).astype(int)
    np.testing.assert_allclose(noised, whole, atol=1e-6)
    counts = np.array([(whole == STEPS // 2 + k).sum() for k in range(-6, 7)])
    law = stats.dlaplace(0.5).pmf(np.arange(-6, 7))
    expected = law / law.sum() * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 0.01
    assert counts.sum() / 20000 == pytest.approx(law.sum(), abs=0.01)


def test_low_bits_of_the_record_do_not_come_through() -> None:
    """Two records a hair apart give exactly the same numbers: what is released is on one grid."""
    source = Source(standardisation=KNOWN, epsilon=3.0)
    one, other = (privatize([[10.0 + hair, -1.0, 0.0]], source=source, rng=rng(1))[0] for hair in (0.0, 1e-9))
    np.testing.assert_array_equal(one, other)


def test_missing_values_become_the_mean_and_get_noise() -> None:
    x = np.array([[np.nan, -1.0, 0.0]] * 3000)
    noised, _ = privatize(x, source=Source(standardisation=KNOWN, epsilon=3.0, bound=1.0), rng=rng())
    assert np.isfinite(noised).all()
    assert stats.kstest(noised[:, 0], "laplace", args=(0.0, 2.0)).pvalue > 0.01


def test_incomplete_records_are_dropped_with_their_labels_or_refused() -> None:
    x, y = np.array([[1.0, 2.0, 3.0], [np.nan, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([0, 1, 2])
    drop = Source(standardisation=KNOWN, missing=Missing.DROP)
    rows, labels = privatize(x, y, source=drop)
    assert rows.shape == (2, 3)
    assert labels is not None
    assert labels.tolist() == [0, 2]
    assert any("incomplete" in said for said in drop.assumptions())
    with pytest.raises(ValueError, match="1 of 3 records have missing values"):
        privatize(x, y, source=Source(standardisation=KNOWN, missing=Missing.REFUSE))


SOURCE = Source(standardisation=KNOWN, epsilon=3.0, label_epsilon=1.0, classes=3)


def whole() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    return rng(7).normal(size=(1000, 3)), rng(8).integers(0, 3, 1000)


@pytest.mark.parametrize("size", [1, 7, 128, 999, 5000])
def test_a_stream_is_the_whole_in_parts(size: int) -> None:
    x, y = whole()
    expected_x, expected_y = privatize(x, y, source=SOURCE, rng=rng(3))
    chunks = ((x[start : start + size], y[start : start + size]) for start in range(0, 1000, size))
    parts = list(privatize_chunks(chunks, source=SOURCE, rng=rng(3)))
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), expected_x)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts if part[1] is not None]), expected_y)


def test_blocks_of_noise_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = whole()
    expected, _ = privatize(x, y, source=SOURCE, rng=rng(3))
    monkeypatch.setattr("defenses.mechanisms.local.privatize.BLOCK", 10)
    np.testing.assert_array_equal(privatize(x, y, source=SOURCE, rng=rng(3))[0], expected)


def test_a_stream_holds_one_part_at_a_time() -> None:
    read = 0

    def endless() -> Iterator[tuple[npt.NDArray[np.float64], None]]:
        nonlocal read
        while True:
            read += 1
            yield np.zeros((100, 3)), None

    found = privatize_chunks(endless(), source=SOURCE)
    for number in range(1, 4):
        next(found)
        assert read == number


def test_a_table_on_disk_goes_through_in_two_passes(tmp_path: Path) -> None:
    """CSV by pandas, then an array that is mapped, not loaded; the statistics of the first pass are public here."""
    x, y = whole()
    pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=y).to_csv(tmp_path / "records.csv", index=False)

    def read() -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
        for part in pd.read_csv(tmp_path / "records.csv", chunksize=130):
            yield part[["a", "b", "c"]].to_numpy(), part["y"].to_numpy()

    rows = np.lib.format.open_memmap(tmp_path / "noised.npy", mode="w+", dtype=np.float64, shape=(1000, 3))
    start = 0
    for part, _ in privatize_chunks(read(), source=SOURCE, rng=rng(3)):
        rows[start : start + len(part)] = part
        start += len(part)
    rows.flush()
    mapped = np.load(tmp_path / "noised.npy", mmap_mode="r")
    np.testing.assert_allclose(mapped, privatize(x, y, source=SOURCE, rng=rng(3))[0], atol=1e-9)
    again = [
        part for part, _ in privatize_chunks(((mapped[k : k + 300], None) for k in range(0, 1000, 300)), source=SOURCE)
    ]
    assert sum(len(part) for part in again) == 1000


def test_real_releases_never_repeat() -> None:
    x, y = whole()
    assert not np.array_equal(privatize(x, y, source=SOURCE)[0], privatize(x, y, source=SOURCE)[0])


def test_a_data_owner_needs_no_torch() -> None:
    modules = "defenses.mechanisms.local.privatize, defenses.mechanisms.local.noisy_gradients"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0, 2.0]], None, "2 features; 3 are expected"),
        ([1.0, 2.0, 3.0], None, r"shape \(3,\)"),
        ([["a", "b", "c"]], None, "not a number"),
        ([[np.inf, 0.0, 0.0]], None, "infinite value in feature 0"),
        ([[0.0, 0.0, 0.0]], [3], r"label 3 is outside the public domain 0\.\.2"),
        ([[0.0, 0.0, 0.0]], [-1], "label -1 is outside"),
        ([[0.0, 0.0, 0.0]], [0.5], "one whole number per record"),
        ([[0.0, 0.0, 0.0]], [np.nan], "one whole number per record"),
        ([[0.0, 0.0, 0.0]], [0, 1], "1 records and 2 labels"),
    ],
)
def test_records_that_do_not_fit_are_refused(x: object, y: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        privatize(x, None if y is None else np.array(y), source=SOURCE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -1.0}, "epsilon of the source is -1.0"),
        ({"epsilon": 0.0}, "above 0 and finite"),
        ({"epsilon": np.nan}, "above 0 and finite"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"label_epsilon": 1.0}, "without classes"),
        ({"label_epsilon": -1.0, "classes": 2}, "epsilon of the labels is -1.0"),
        ({"label_epsilon": 1.0, "classes": 1}, "at least 2 labels"),
    ],
)
def test_sources_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(standardisation=KNOWN, **options)  # type: ignore[arg-type]


def test_what_a_record_pays_is_features_and_label() -> None:
    assert SOURCE.cost == 4.0
    assert Source(standardisation=KNOWN, label_epsilon=1.0, classes=2).cost == np.inf
    assert not any("labels are public" in said for said in SOURCE.assumptions())
    assert any("labels are public" in said for said in Source(standardisation=KNOWN, epsilon=1.0).assumptions())


def test_one_record_of_a_laptop_is_enough() -> None:
    noised, label = privatize([[11.0, -1.0, 0.0]], np.array([2]), source=SOURCE)
    assert noised.shape == (1, 3)
    assert label is not None
    assert label[0] in (0, 1, 2)
    assert check_rows([[1, 2]]).dtype == np.float64
    assert len(public_statistics([[1.0, 2.0], [3.0, 4.0]])) == 2
