"""Random views of image records: a pure function of records and draws, so that models stack and runs repeat."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.randomness import stream
from defenses.records import IntArray


@dataclass(frozen=True)
class Augmentation:
    """What is done to every image each time it is drawn.

    A record stays one record: under a per-example rule it is its random view whose gradient is clipped, so the
    guarantee is unchanged.

    Attributes:
        flip: Whether to mirror left and right, by a fair coin.
        shift: Largest translation in pixels along each axis, uniform; what comes in from outside is zero.

    Raises:
        ValueError: If the shift is negative.
    """

    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift is {self.shift}; it must be at least 0 pixels")

    def __bool__(self) -> bool:
        """Whether anything is done at all."""
        return self.flip or self.shift > 0

    def draw(self, count: int, *, seed: int, step: tuple[int, int]) -> IntArray:
        """Draw the views of one model's lot.

        Args:
            count: Records in the lot.
            seed: The model's seed.
            step: (epoch, position in the epoch).

        Returns:
            (count, 3) int64: mirrored or not, rows and columns to move by, in 0 .. 2 * shift.
        """
        rng = stream(seed, "augmentation", *step)
        mirrored = rng.integers(0, 2, size=(count, 1)) if self.flip else np.zeros((count, 1), dtype=np.int64)
        moved = rng.integers(0, 2 * self.shift + 1, size=(count, 2))
        return np.concatenate([mirrored, moved], axis=1)

    def apply(self, x: Tensor, views: Tensor) -> Tensor:
        """Return the views of images.

        Args:
            x: (B, channels, height, width).
            views: (B, 3) int64, as drawn.
        """
        channels, height, width = x.shape[1:]
        rows = torch.arange(height, device=x.device) + views[:, 1, None]
        columns = torch.arange(width, device=x.device).expand(len(x), -1)
        columns = torch.where(views[:, :1] > 0, width - 1 - columns, columns) + views[:, 2, None]
        padded = F.pad(x, (self.shift,) * 4) if self.shift else x
        which = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[:, None, None]
        return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]
