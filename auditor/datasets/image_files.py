"""Image files of unknown origin: the formats that are read, and their pixels.

Pillow hands some formats to other programs, and goes by a file's content, whatever its name says. So only formats that
Pillow decodes itself are tried, and nothing is decoded before the size in the header is the one expected.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.datasets.pixels import Bytes
from defenses.errors import DataError
from reports.untrusted import guarded, open_regular, printable

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""Raster formats that are read; Pillow's names."""

CHANNELS_OF_MODE = {"L": 1, "RGB": 3}
"""Kinds of pixels that are read: grey or colour, one byte per channel."""

LARGEST_FILE = 2**28
"""Bytes that the file of one image may have."""

_MPO = "MPO"  # a JPEG that carries further pictures, such as a preview: every reader of JPEG takes the first


def image_size(file: Path) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image as its header says; nothing is decoded.

    Raises:
        DataError: As for `image_pixels`.
    """
    with _opened(file) as image:
        return _size(image)


def image_pixels(file: Path, *, like: tuple[int, int, int], first: str) -> Bytes:
    """Decode one grey or colour image.

    Args:
        file: The image; its content decides on its format.
        like: (height, width, channels) that it must have.
        first: Name of the image that has them, for an error.

    Returns:
        (height, width, channels).

    Raises:
        DataError: If it is no image of `FORMATS`, damaged, animated, of another mode or size.
    """
    with _opened(file) as image:
        if (size := _size(image)) != like:
            raise DataError(
                f"{printable(str(file))} is {_described(size)}, but {printable(first)} is {_described(like)}; all "
                f"images must have one size and mode, so resize or convert them first"
            )
        return np.asarray(image, dtype=np.uint8).reshape(like)


def image_endings() -> tuple[frozenset[str], frozenset[str]]:
    """Return the endings of files that are read, and of those that Pillow knows as images but that are not read."""
    from PIL import Image as Pillow

    known = Pillow.registered_extensions()
    read = frozenset(ending for ending, kind in known.items() if kind in (*FORMATS, _MPO))
    return read, frozenset(known) - read


@contextlib.contextmanager
def _opened(file: Path) -> Iterator["Image"]:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    shown = printable(str(file))
    with (
        guarded(shown, error=DataError, remedy=f"replace or remove it; {', '.join(FORMATS)} are read"),
        open_regular(file, error=DataError, most=LARGEST_FILE) as content,
        warnings.catch_warnings(),
    ):
        # Damaged metadata is no concern of ours, and what is too large is refused by the budget.
        warnings.simplefilter("ignore")
        try:
            image = Pillow.open(content, formats=FORMATS)
        except UnidentifiedImageError:
            raise DataError(
                f"{shown} is not a readable image; replace or remove it ({', '.join(FORMATS)} are read)"
            ) from None
        with image:
            if image.mode not in CHANNELS_OF_MODE:
                raise DataError(f"{shown} has mode {image.mode}; convert it to grey (L) or colour (RGB) first")
            if image.format != _MPO and getattr(image, "is_animated", False):
                raise DataError(f"{shown} holds several pictures; save the one that is meant as a file of its own")
            yield image


def _size(image: "Image") -> tuple[int, int, int]:
    width, height = image.size
    return height, width, CHANNELS_OF_MODE[image.mode]


def _described(size: tuple[int, int, int]) -> str:
    height, width, channels = size
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'}"
