"""Drawn records that belong to nobody: what a report may show when it must not show people."""

from dataclasses import replace

import numpy as np

from defenses.records import FloatArray, Image, Records, Table


def drawn(like: Records, count: int, *, rng: np.random.Generator) -> Records:
    """Draw records of the same kind as others, from their public shape and ranges alone.

    Images hold discs and bars of random place, size and shade; rows of a table hold random values of each column.

    Args:
        like: Gives shape, classes and kind; none of its values is looked at.
        count: How many, each of a random class.
        rng: Draws them.
    """
    if isinstance(like.kind, Image):
        x = np.stack([_image(like.shape, like.kind, rng) for _ in range(count)])
    else:
        x = _rows(like.shape[0], like.kind, count, rng)
    y = rng.integers(0, like.classes, count)
    return replace(like, x=x.astype(np.float32), y=y, name="drawn canaries", owner=None, cluster=None)


def _image(shape: tuple[int, ...], kind: Image, rng: np.random.Generator) -> FloatArray:
    channels, height, width = shape
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    down, across = (down + 0.5) / height, (across + 0.5) / width
    found = np.zeros(shape, np.float32)
    for _ in range(3):
        centre, size, angle = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.3), rng.uniform(0, np.pi)
        if rng.random() < 0.5:
            inside = (down - centre[0]) ** 2 + (across - centre[1]) ** 2 < size**2
        else:
            along = (down - centre[0]) * np.cos(angle) + (across - centre[1]) * np.sin(angle)
            inside = np.abs(along) < size / 3
        shade = rng.uniform(0.3, 1.0, channels).astype(np.float32)
        found = np.where(inside, shade[:, None, None], found)
    return np.asarray(kind.low + (kind.high - kind.low) * found, dtype=np.float32)


def _rows(features: int, table: Table, count: int, rng: np.random.Generator) -> FloatArray:
    x = rng.random((count, features)).astype(np.float32)
    for column in table.columns:
        if column.categories:
            block = np.zeros((count, column.width), np.float32)
            block[np.arange(count), rng.integers(0, column.width, count)] = 1
            x[:, column.start : column.start + column.width] = block
    return x
