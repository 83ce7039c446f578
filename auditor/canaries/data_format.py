"""The protocol of a form of data: how records and canaries are written so that they read back as they were meant."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from auditor.canaries.canary_type import Drawn
from auditor.datasets import load
from defenses.records import IntArray, Records


class DataFormat(abc.ABC):
    """A data set in the form that it came in.

    Attributes:
        name: File or folder name of what is written.
        records: The data set as it was loaded.
        reading: What `read_back` must be told; JSON-ready.
    """

    def __init__(self, name: str, records: Records, reading: Mapping[str, Any]) -> None:
        self.name, self.records, self.reading = name, records, reading

    @abc.abstractmethod
    def write(self, path: Path, kept: IntArray, added: Drawn, order: IntArray) -> None:
        """Write records and canaries.

        Args:
            path: Where to; nothing is there yet.
            kept: Indices of the records that stay.
            added: The canaries.
            order: A permutation of the records that stay, followed by the canaries.

        Raises:
            DataError: If a canary cannot be written in this form.
        """

    def settle(self, drawn: Drawn, scratch: Path) -> Drawn:
        """Return candidates as they will read back, for example rounded to whole numbers.

        Args:
            drawn: Candidates.
            scratch: A private folder for temporary files.
        """
        if drawn.base is not None:  # records as they are
            return drawn
        path = scratch / self.name
        self.write(path, np.empty(0, np.int64), drawn, np.arange(len(drawn)))
        back = read_back(path, self.reading, like=self.records)
        path.unlink()
        return Drawn(back.x, back.y)


def read_back(path: Path, reading: Mapping[str, Any], *, like: Records) -> Records:
    """Read data that a form wrote, in the encoding of `like`.

    Args:
        path: The file or folder.
        reading: The form's.
        like: Records whose encoding is used.

    Raises:
        AuditError: If it cannot be read that way.
    """
    value_range = reading.get("value_range")
    return load(
        path,
        like=like,
        classes=reading.get("classes"),
        value_range=None if value_range is None else (value_range[0], value_range[1]),
        rescale=reading.get("rescale", True),
    )
