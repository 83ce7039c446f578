"""Folders of images, a sub-folder per class: files are copied under random names, canaries written as PNG."""

import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from auditor.canaries.canary_type import Drawn
from auditor.canaries.data_format import DataFormat
from auditor.datasets.image_files import LARGEST_FILE
from auditor.datasets.image_folders import class_folders, images_in
from auditor.datasets.pixels import Bytes, unit_interval
from defenses.errors import DataError
from defenses.records import FloatArray, IntArray, Records
from reports.untrusted import open_regular, printable


class ImageFolder(DataFormat):
    """A folder of images.

    Every file gets a name drawn at random and one common time stamp: names, times and the order on disk tell nothing.
    Canaries are PNG, which keeps every pixel; a record under another label is its own file in another folder.

    Args:
        path: The folder.
        records: What was loaded from it, class by class and by file name within a class.
    """

    def __init__(self, path: Path, records: Records) -> None:
        shown = printable(str(path))
        self._files = [file for name in class_folders(path) for file in images_in(path / name)]
        if len(self._files) != len(records):
            raise DataError(
                f"{shown} changed while it was read: {len(self._files)} images, not {len(records)}; try again"
            )
        # Codes follow the folders' order unless the caller gave another one, which the records show.
        code = {file.parent.name: int(label) for file, label in zip(self._files, records.y, strict=True)}
        self._named = {label: name for name, label in code.items()}
        if len(self._named) < records.classes:
            raise DataError(
                f"{shown} has images of {len(self._named)} of {records.classes} classes; add images of all of them"
            )
        names = [self._named[label] for label in range(records.classes)]
        super().__init__(path.resolve().name, records, {"classes": names})

    def write(self, path: Path, kept: IntArray, added: Drawn, order: IntArray) -> None:
        """Copy files and write canaries in the given order; see `DataFormat.write`."""
        now = path.parent.stat().st_mtime
        for place in order:
            number = int(place) - len(kept)  # of the canary; below 0 it is a record
            label = int(self.records.y[kept[place]] if number < 0 else added.y[number])
            folder = path / self._named[label]
            folder.mkdir(parents=True, exist_ok=True)
            name = secrets.token_hex(12)
            if number >= 0 and added.base is None:
                file = folder / f"{name}.png"
                _save(added.x[number], file)
            else:
                original = self._files[kept[place] if number < 0 or added.base is None else added.base[number]]
                file = folder / f"{name}{original.suffix.lower()}"
                with open_regular(original, error=DataError, most=LARGEST_FILE) as content, file.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
            os.utime(file, (now, now))

    def settle(self, drawn: Drawn, scratch: Path) -> Drawn:
        """Round pixels to bytes; see `DataFormat.settle`."""
        return Drawn(unit_interval(_bytes(drawn.x)), drawn.y, drawn.base)


def _bytes(x: FloatArray) -> Bytes:
    pixels: Bytes = np.rint(np.clip(x, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels


def _save(x: FloatArray, file: Path) -> None:
    from PIL import Image as Pillow

    pixels = np.moveaxis(_bytes(x), 0, 2)
    Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file)
