"""Pixels: byte arrays and encoded images to float32 records (n, channels, height, width)."""

import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.errors import DataError
from defenses.records import FloatArray

Bytes = npt.NDArray[np.uint8]

CHANNELS = (1, 3)
"""Numbers of channels that an image may have."""


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


def read_idx(path: Path) -> Bytes:
    """Read an idx file of unsigned bytes (the format of MNIST), packed with gzip or not.

    Args:
        path: The file; packed or not is decided by its content.

    Returns:
        The array in the shape that its header says.

    Raises:
        DataError: If the file is damaged or holds something else.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and get it again") from None
    dimensions = raw[3] if len(raw) > 3 and raw[:3] == b"\x00\x00\x08" else 0
    shape = tuple(np.frombuffer(raw[4 : 4 + 4 * dimensions], dtype=">u4").tolist())
    if not dimensions or len(shape) != dimensions or len(raw) != 4 + 4 * dimensions + math.prod(shape):
        raise DataError(f"{path} is not a complete idx file of bytes ({len(raw)} bytes); delete it and get it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_npz(path: Path, *keys: str, optional: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """Read arrays from an `.npz` file, never unpickling.

    Args:
        path: The file.
        *keys: Names of the arrays that it must hold.
        optional: Names of arrays that are read if they are there.

    Returns:
        The arrays by name.

    Raises:
        DataError: If the file is damaged, lacks an array, or holds pickled objects.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            absent = [key for key in keys if key not in arrays]
            if not absent:
                return {key: arrays[key] for key in (*keys, *optional) if key in arrays}
            held = ", ".join(arrays) or "nothing"
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which could run code when read; save plain number arrays instead: "
                f"numpy.savez(path, x=..., y=...)"
            ) from None
        raise DataError(f"{path} is not a readable .npz file ({error}); write it with numpy.savez") from None
    raise DataError(f"{path} has no array {absent[0]!r}; it needs {', '.join(keys)} and holds {held}")


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
    pixels = np.empty((len(ends) - 1, side, side, 3), dtype=np.uint8)
    for index in range(len(pixels)):
        try:
            with Image.open(io.BytesIO(joined[ends[index] : ends[index + 1]]), formats=("JPEG",)) as image:
                pixels[index] = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(side, side, 3)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{source}: image {index} is not a {side} x {side} colour JPEG ({error}); get it again"
            ) from None
    return pixels
