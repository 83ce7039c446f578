"""Pixels: byte arrays and encoded images to float32 records (n, channels, height, width)."""

import contextlib
import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.files.memory_budget import check_budget, default_budget
from defenses.errors import DataError
from defenses.records import FloatArray
from reports.untrusted import guarded, open_regular, printable

Bytes = npt.NDArray[np.uint8]

CHANNELS = (1, 3)
"""Numbers of channels that an image may have."""

_AGAIN = "delete it and get it again"
_MOST_AXES = 4


def unit_interval(pixels: Bytes) -> FloatArray:
    """Divide bytes by 255, in one pass and one allocation."""
    return np.divide(pixels, np.float32(255), dtype=np.float32, order="C")


def channels_first(pixels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
    """Return image arrays as (n, channels, height, width), as a view.

    Args:
        pixels: (n, height, width), (n, height, width, channels) or (n, channels, height, width); 1 or 3 channels.
        source: What to call the array in an error.

    Returns:
        The same pixels with the channels in second place.

    Raises:
        DataError: If the shape does not say which axis holds the channels.
    """
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4:
        first, last = pixels.shape[1] in CHANNELS, pixels.shape[3] in CHANNELS
        if first and not last:
            return pixels
        if last and not first:
            return np.moveaxis(pixels, 3, 1)
    raise DataError(
        f"{source}: an array of shape {pixels.shape} does not say which axis holds the channels; give "
        f"(n, channels, height, width) or (n, height, width) with 1 or 3 channels"
    )


def read_idx(path: Path, *, max_memory: int | None = None) -> Bytes:
    """Read an idx file of unsigned bytes (the format of MNIST), packed with gzip or not.

    Args:
        path: The file; packed or not is decided by its content.
        max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

    Returns:
        The array in the shape that its header says.

    Raises:
        DataError: If the file is damaged, holds something else, or would need more memory than the budget.
    """
    shown = printable(str(path))
    with open_regular(path, error=DataError) as file, guarded(shown, error=DataError, remedy=_AGAIN):
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if packed else contextlib.nullcontext(file) as content:
            head = content.read(4)
            dimensions = head[3] if len(head) == 4 and head[:3] == b"\x00\x00\x08" and head[3] <= _MOST_AXES else 0
            shape = tuple(np.frombuffer(content.read(4 * dimensions), dtype=">u4").tolist())
            if dimensions and len(shape) == dimensions:
                # One byte becomes one float32 of a record beside it.
                budget = default_budget() if max_memory is None else max_memory
                check_budget(5 * math.prod(shape), budget, shown, error=DataError)
                raw = content.read(math.prod(shape))
                if len(raw) == math.prod(shape) and not content.read(1):
                    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)
        raise DataError(f"{shown} is not a complete idx file of bytes; {_AGAIN}")


def decode_jpeg(encoded: Bytes, offsets: npt.NDArray[np.int64], *, side: int, source: str) -> Bytes:
    """Decode colour JPEG files that lie one after the other.

    Decoding small files is bound by the interpreter, so threads do not help; 50,000 of 32 x 32 take about 4 s.

    Args:
        encoded: All files, joined.
        offsets: (n + 1,) image i is `encoded[offsets[i]:offsets[i + 1]]`.
        side: Height and width that every image must have.
        source: What to call the array in an error.

    Returns:
        (n, side, side, 3).

    Raises:
        DataError: If one is damaged or has another size.
    """
    from PIL import Image

    joined, ends = memoryview(encoded.tobytes()), offsets.tolist()
    check_budget(5 * 3 * side * side * len(ends), default_budget(), source, error=DataError)
    pixels = np.empty((max(len(ends) - 1, 0), side, side, 3), dtype=np.uint8)
    for index in range(len(pixels)):
        what = f"{source}: image {index}"
        with (
            guarded(what, error=DataError, remedy=f"it must be a {side} x {side} colour JPEG, so get it again"),
            Image.open(io.BytesIO(joined[ends[index] : ends[index + 1]]), formats=("JPEG",)) as image,
        ):
            # Its size is known before it is decoded.
            if (image.size, image.mode) != ((side, side), "RGB"):
                raise DataError(f"{what} is {image.size} and not {side} x {side} in colour; get it again")
            pixels[index] = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(side, side, 3)
    return pixels
