"""Pairwise measures against definitions, exact matches, and wrong input."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from attacks.similarity import HIGHEST_PSNR, mixed_distance, mse, ncc, psnr, similarities, ssim
from defenses.records import Column, Image, Table

RNG = np.random.default_rng(0)
MEASURES = {
    "mse": mse,
    "psnr": lambda a, b: psnr(a, b, value_range=(0.0, 1.0)),
    "ncc": ncc,
    "ssim": lambda a, b: ssim(a, b, value_range=(0.0, 1.0)),
}


def images(count: int, side: int = 28, channels: int = 1) -> np.ndarray:
    return RNG.random((count, channels, side, side))


def plain_ssim(a: np.ndarray, b: np.ndarray, window: int, sigma: float) -> float:
    """The definition, one channel at a time, images mirrored at their edges."""
    half = window // 2
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror")

    found = []
    for x, y in zip(a, b, strict=True):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        found.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_are_what_each_pair_is_by_itself(channels: int) -> None:
    a, b = images(3, channels=channels), images(4, channels=channels)
    for i in range(3):
        for j in range(4):
            difference = ((a[i] - b[j]) ** 2).mean()
            assert mse(a, b)[i, j] == pytest.approx(difference, rel=1e-9)
            assert psnr(a, b, value_range=(0.0, 2.0))[i, j] == pytest.approx(10 * np.log10(4 / difference), rel=1e-9)
            assert ncc(a, b)[i, j] == pytest.approx(np.corrcoef(a[i].ravel(), b[j].ravel())[0, 1], abs=1e-12)
            assert ssim(a, b, value_range=(0.0, 1.0))[i, j] == pytest.approx(plain_ssim(a[i], b[j], 11, 1.5), abs=1e-4)


@pytest.mark.parametrize(("side", "half"), [(8, 5), (6, 5), (5, 4), (3, 2)])
def test_small_images_get_a_window_that_fits(side: int, half: int) -> None:
    a, b = images(2, side), images(2, side)
    found = ssim(a, b, value_range=(0.0, 1.0))
    assert found[0, 1] == pytest.approx(
        plain_ssim(a[0], b[1], 2 * half + 1, min(1.5, half / 3.5) if half < 5 else 1.5), abs=1e-4
    )


def test_ranges_shift_and_scale() -> None:
    a, b = images(2), images(3)
    moved = ssim(4 * a - 1, 4 * b - 1, value_range=(-1.0, 3.0))
    assert moved == pytest.approx(ssim(a, b, value_range=(0.0, 1.0)), abs=1e-4)
    assert psnr(4 * a - 1, 4 * b - 1, value_range=(-1.0, 3.0)) == pytest.approx(psnr(a, b, value_range=(0.0, 1.0)))


def test_exact_matches_are_finite_and_the_best_there_is() -> None:
    a = images(3)
    far = 1e6 + images(2)  # where a difference of squares cancels to nothing, or to less
    assert np.diag(mse(a, a)).tolist() == [0.0, 0.0, 0.0]
    assert mse(far, far)[0, 1] == pytest.approx(((far[0] - far[1]) ** 2).mean(), rel=1e-6)
    assert np.diag(psnr(a, a, value_range=(0.0, 1.0))).tolist() == [HIGHEST_PSNR] * 3
    assert np.diag(ssim(a, a, value_range=(0.0, 1.0))) == pytest.approx(1, abs=1e-5)
    assert np.diag(ncc(a, 3 * a + 2)) == pytest.approx(1, abs=1e-12)
    assert np.isfinite(psnr(a, np.concatenate([a, images(1)]), value_range=(0.0, 1.0)).mean())
    blank = np.full((1, 1, 28, 28), 0.1)
    assert ncc(blank, a).tolist() == [[0.0, 0.0, 0.0]]


def test_tables_count_columns_not_features() -> None:
    columns = (Column("age", (), 0, 90, 0, 1), Column("job", ("a", "b", "c"), 0, 1, 1, 3))
    table = Table(columns, "y", ("0", "1"))
    a = [[0.5, 1, 0, 0], [0.5, 0.2, 0.7, 0.1]]
    b = [[0.25, 1, 0, 0], [0.5, 0, 0, 1]]
    np.testing.assert_allclose(mixed_distance(a, b, table=table), [[0.125, 0.5], [0.625, 0.5]])
    assert list(similarities(table)) == ["gower", "mse"]
    assert list(similarities(Table((), "y", ()))) == ["mse"]
    with pytest.raises(ValueError, match="3 features, the table's columns make 4"):
        mixed_distance(np.zeros((1, 3)), np.zeros((1, 3)), table=table)


def test_every_measure_ranks_the_record_itself_first() -> None:
    a = images(5)
    noisy = a + 0.05 * RNG.normal(size=a.shape)
    for measure in similarities(Image()).values():
        assert measure(noisy, a).argmax(axis=1).tolist() == [0, 1, 2, 3, 4], measure.name


@pytest.mark.parametrize("name", MEASURES)
def test_wrong_input(name: str) -> None:
    measure, a = MEASURES[name], images(2)
    broken = a.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 1568 features are not finite"):
        measure(broken, a)
    with pytest.raises(ValueError, match="alike"):
        measure(a, images(2, 14))
    with pytest.raises(ValueError, match="alike"):
        measure(a[0, 0, 0], a[0, 0, 0])


def test_an_empty_range_and_a_table_for_an_image_are_refused() -> None:
    with pytest.raises(ValueError, match="low below high"):
        psnr(images(1), images(1), value_range=(1.0, 1.0))
    with pytest.raises(ValueError, match="channels, height, width"):
        ssim(np.zeros((2, 30)), np.zeros((2, 30)), value_range=(0.0, 1.0))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (1, 64)])
def test_structural_similarity_is_that_of_torchmetrics(channels: int, side: int) -> None:
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    a = images(4, side, channels)
    b = np.clip(a + 0.2 * RNG.normal(size=a.shape), 0, 1)
    said = structural_similarity_index_measure(
        torch.from_numpy(a).float(), torch.from_numpy(b).float(), data_range=1.0, sigma=1.5, reduction="none"
    )
    assert isinstance(said, torch.Tensor)
    assert np.diag(ssim(a, b, value_range=(0.0, 1.0))) == pytest.approx(said.numpy(), abs=1e-5)
