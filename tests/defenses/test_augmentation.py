"""Random views: what they are, and that they depend on model and step alone."""

import numpy as np
import pytest
import torch
from torch.func import vmap

from defenses.augmentation import Augmentation


def images(count: int) -> torch.Tensor:
    return torch.arange(1, count * 2 * 5 * 6 + 1, dtype=torch.float32).reshape(count, 2, 5, 6)


def naive(image: torch.Tensor, view: np.ndarray, shift: int) -> torch.Tensor:
    out = torch.zeros_like(image)
    for row in range(5):
        for column in range(6):
            down, across = row + view[1] - shift, (5 - column if view[0] else column) + view[2] - shift
            if 0 <= down < 5 and 0 <= across < 6:
                out[:, row, column] = image[:, down, across]
    return out


@pytest.mark.parametrize("augmentation", [Augmentation(True, 2), Augmentation(False, 1), Augmentation(True, 0)])
def test_views_are_moved_and_mirrored_images(augmentation: Augmentation) -> None:
    x = images(40)
    views = augmentation.draw(40, seed=3, step=(0, 1))
    found = augmentation.apply(x, torch.from_numpy(views))
    for image, view, out in zip(x, views, found, strict=True):
        assert torch.equal(out, naive(image, view, augmentation.shift))
    centre = views[:, 1:] == augmentation.shift
    assert (views[:, 0] == 1).any() == augmentation.flip
    assert augmentation.shift == 0 or not centre.all()


def test_no_move_is_the_identity() -> None:
    still = torch.tensor([[0, 2, 2]] * 3)
    assert torch.equal(Augmentation(True, 2).apply(images(3), still), images(3))


def test_views_depend_on_seed_and_step_and_cover_their_range() -> None:
    augmentation = Augmentation(flip=True, shift=2)
    views = augmentation.draw(2000, seed=1, step=(0, 0))
    assert np.array_equal(views, augmentation.draw(2000, seed=1, step=(0, 0)))
    for other in (augmentation.draw(2000, seed=2, step=(0, 0)), augmentation.draw(2000, seed=1, step=(0, 1))):
        assert not np.array_equal(views, other)
    assert np.abs(np.bincount(views[:, 0]) / 2000 - 0.5).max() < 0.05
    assert np.abs(np.bincount(views[:, 1], minlength=5) / 2000 - 0.2).max() < 0.05


def test_it_maps_over_models() -> None:
    augmentation, x = Augmentation(flip=True, shift=1), images(6).reshape(3, 2, 2, 5, 6)
    views = torch.from_numpy(np.stack([augmentation.draw(2, seed=k, step=(0, 0)) for k in range(3)]))
    together = vmap(augmentation.apply)(x, views)
    assert all(torch.equal(together[k], augmentation.apply(x[k], views[k])) for k in range(3))


def test_a_negative_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="shift is -1"):
        Augmentation(shift=-1)
