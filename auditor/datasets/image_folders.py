"""Folders of images, each sub-folder a class."""

from pathlib import Path

import numpy as np

from auditor.datasets.pixels import Bytes, unit_interval
from auditor.datasets.reading import Reading
from auditor.datasets.schema import few
from defenses.errors import DataError
from defenses.records import Image, Records


def read_folder(path: Path, reading: Reading) -> Records:
    """Read a folder of images in which every sub-folder is a class.

    Args:
        path: The folder; classes are numbered in the order of their names unless `classes` gives the order.
        reading: classes (names of sub-folders in order; needed with `like`), like.

    Returns:
        Grey or colour images in [0, 1], class by class, and by file name within a class.

    Raises:
        DataError: If a file is damaged, images differ in size or mode, or a sub-folder is not one of the classes.
        ValueError: If an argument does not fit the folder.
    """
    reading.refuse_all_but("classes", "like", source=str(path))
    found = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if isinstance(reading.classes, int) or (reading.like is not None and reading.class_names is None):
        raise ValueError(
            f"{path}: a number of classes does not say which sub-folder is which; give their names in order, the same "
            f"for every folder of the audit: classes=[{few(found)}]"
        )
    names = reading.class_names or tuple(found)
    if unknown := [name for name in found if name not in names]:
        raise DataError(f"{path}: sub-folder {unknown[0]!r} is not one of the classes {few(names)}; move it or add it")
    files = [(file, names.index(name)) for name in found for file in _images_in(path / name)]
    if not files:
        raise DataError(
            f"{path} has no sub-folders with images; put the images of each class into a folder of its name"
        )
    first = _pixels(files[0][0])
    pixels = np.empty((len(files), *first.shape), dtype=np.uint8)
    for index, (file, _) in enumerate(files):
        one = _pixels(file)
        if one.shape != first.shape:
            raise DataError(
                f"{file} is {_described(one)}, but {files[0][0].name} is {_described(first)}; all images must have one "
                f"size and mode, so resize or convert them first"
            )
        pixels[index] = one
    labels = np.array([code for _, code in files], dtype=np.int64)
    records = Records(
        unit_interval(np.moveaxis(pixels, 3, 1)), labels, len(names), Image(0.0, 1.0), name=path.resolve().name
    )
    return reading.check_alike(records, str(path))


def _images_in(folder: Path) -> list[Path]:
    from PIL import Image as Pillow

    endings = {ending for ending, kind in Pillow.registered_extensions().items() if kind in Pillow.OPEN}
    inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in inside if entry.is_file() and entry.suffix.lower() in endings]
    if not images:
        nested = any(entry.is_dir() for entry in inside)
        remedy = "name the folder of one split, for example its train folder" if nested else "remove it or fill it"
        raise DataError(f"{folder} holds no images, and every sub-folder is a class; {remedy}")
    return images


def _pixels(file: Path) -> Bytes:
    """Return (height, width, channels) of one grey or colour image."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(file) as image:
            if image.mode not in ("L", "RGB"):
                raise DataError(f"{file} has mode {image.mode}; convert it to grey (L) or colour (RGB) first")
            pixels = np.asarray(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise DataError(f"{file} is not a readable image ({error}); replace or remove it") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _described(pixels: Bytes) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'}"
