"""Folders of images, each sub-folder a class."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from auditor.datasets.image_files import FORMATS, image_endings, image_pixels, image_size
from auditor.datasets.pixels import Bytes, unit_interval
from auditor.datasets.reading import Reading
from auditor.datasets.schema import few, quoted
from auditor.files.memory_budget import check_budget
from defenses.errors import DataError
from defenses.records import Image, Records
from reports.untrusted import guarded, printable

_PATH = 1_000
"""Bytes that the path of a file takes in a list, roughly."""


def read_folder(path: Path, reading: Reading) -> Records:
    """Read a folder of images in which every sub-folder is a class.

    Args:
        path: The folder; classes are numbered in the order of their names unless `classes` gives the order.
        reading: classes (names of sub-folders in order; needed with `like`), like.

    Returns:
        Grey or colour images in [0, 1], class by class, and by file name within a class.

    Raises:
        DataError: If a file is damaged, images differ in size or mode, a sub-folder is not one of the classes, or the
            budget is exceeded.
        ValueError: If an argument does not fit the folder.
    """
    shown = printable(str(path))
    reading.refuse_all_but("classes", "like", source=shown)
    found = class_folders(path)
    if isinstance(reading.classes, int) or (reading.like is not None and reading.class_names is None):
        raise ValueError(
            f"{shown}: a number of classes does not say which sub-folder is which; give their names in order, the same "
            f"for every folder of the audit: classes=[{few(found)}]"
        )
    names = reading.class_names or tuple(found)
    codes = {name: code for code, name in enumerate(names)}
    if unknown := [name for name in found if name not in codes]:
        raise DataError(
            f"{shown}: sub-folder {quoted(unknown[0])} is not one of the classes {few(names)}; move it or add it"
        )
    files: list[Path] = []
    labels: list[int] = []
    for name in found:
        inside = images_in(path / name)
        files += inside
        labels += [codes[name]] * len(inside)
        check_budget(len(files) * _PATH, reading.max_memory, f"the list of files in {shown}", error=DataError)
    if not files:
        raise DataError(
            f"{shown} has no sub-folders with images; put the images of each class into a folder of its name"
        )
    x = unit_interval(np.moveaxis(_pixels(files, reading.max_memory, shown), 3, 1))
    records = Records(
        x, np.array(labels, dtype=np.int64), len(names), Image(0.0, 1.0), name=printable(path.resolve().name)
    )
    return reading.check_alike(records, shown)


def class_folders(path: Path) -> list[str]:
    """Return the names of the sub-folders that are classes, in order."""
    with _listed(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Return the images of one class in the order in which they are loaded.

    Raises:
        DataError: If there are none, or one has the ending of a format that is not read.
    """
    read, unread = image_endings()
    with _listed(folder) as entries:
        inside = sorted(entry for entry in entries if not entry.name.startswith("."))
        images = [entry for entry in inside if entry.suffix.lower() in read and not entry.is_dir()]
        strange = [entry for entry in inside if entry.suffix.lower() in unread and not entry.is_dir()]
        nested = any(entry.is_dir() for entry in inside)
    if strange:
        raise DataError(
            f"{printable(str(strange[0]))} has the ending of a format that is not read; {', '.join(FORMATS)} are, so "
            f"convert or remove it"
        )
    if not images:
        remedy = "name the folder of one split, for example its train folder" if nested else "remove it or fill it"
        raise DataError(f"{printable(str(folder))} holds no images, and every sub-folder is a class; {remedy}")
    return images


@contextlib.contextmanager
def _listed(folder: Path) -> Iterator[Iterator[Path]]:
    remedy = "check its permissions and names"
    with guarded(printable(str(folder)), error=DataError, remedy=remedy):
        yield folder.iterdir()


def _pixels(files: list[Path], max_memory: int, shown: str) -> Bytes:
    """Return (n, height, width, channels) of images of one size, if they fit into the budget."""
    like = image_size(files[0])
    # A byte each, and then a float32.
    check_budget(5 * len(files) * math.prod(like), max_memory, f"the images of {shown}", error=DataError)
    pixels = np.empty((len(files), *like), dtype=np.uint8)
    for index, file in enumerate(files):
        pixels[index] = image_pixels(file, like=like, first=files[0].name)
    return pixels
