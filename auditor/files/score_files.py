"""Files of recorded outputs, `.npz` or `.csv`, read into arrays of finite numbers by name."""

import array
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from attacks.recorded_models import MOST_RECORDS
from auditor.files.memory_budget import check_budget
from auditor.files.npz import read_npz
from defenses.errors import DataError
from reports.untrusted import guarded, open_regular, printable

__all__ = ["KINDS", "Arrays", "read_scores"]

Arrays = Mapping[str, npt.NDArray[Any]]

KINDS = ("logits", "probabilities", "loss", "score")

MOST_COLUMNS = 100_000
"""Columns that a `.csv` file may have: one for each class, and a few more."""

_KNOWN = frozenset(
    {"member", "label", "owner", "population_label", "shadow_member"}
    | {f"{prefix}{kind}" for prefix in ("", "population_", "shadow_", "shadow_population_") for kind in KINDS}
)
_WIDE = re.compile(r"(logits|probabilities)_(0|[1-9][0-9]{0,6})")
_LONGEST_LINE = 2**22  # characters
_LARGEST = float(np.finfo(np.float32).max)
_WORKING = 16  # bytes of memory per byte of text: "0," becomes two float64


def read_scores(path: Path, *, max_memory: int) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a file of recorded outputs.

    Args:
        path: The file; a `.csv` file has columns member, label, owner, loss or score, and logits_0, logits_1 ... or
            probabilities_0 ...; a `.npz` file may also have what shadow models said.
        max_memory: Bytes of memory that reading may take.

    Returns:
        The arrays by name, each of at least one axis.

    Raises:
        DataError: If the file cannot be read, has an unknown array or column, or a value that is no finite number.
    """
    if path.suffix == ".npz":
        arrays = read_npz(path, optional=sorted(_KNOWN), only=True, max_memory=max_memory)
    elif path.suffix == ".csv":
        with open_regular(path, error=DataError) as file:
            arrays = _read_csv(file, path, max_memory=max_memory)
    else:
        raise DataError(
            f"{printable(path.name)}: recorded outputs are read from .npz or .csv; save them as one of these"
        )
    for name, values in arrays.items():
        _check(values, f"{printable(path.name)}: {name}")
    return arrays


def _check(values: npt.NDArray[Any], what: str) -> None:
    if not values.ndim:
        raise DataError(f"{what} is one number; give one for each record")
    if values.dtype.kind != "f":
        return
    # Compared as they are, and not after a cast that would overflow; nan compares as False.
    if not (good := np.abs(values) <= _LARGEST).all():
        raise DataError(f"{what}: {int((~good).sum())} of {values.size} values are not finite; leave their records out")


def _read_csv(file: BinaryIO, path: Path, *, max_memory: int) -> dict[str, npt.NDArray[Any]]:
    name = printable(path.name)
    check_budget(_WORKING * os.fstat(file.fileno()).st_size, max_memory, name, error=DataError)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        with guarded(name, error=DataError, remedy="give a table of numbers in UTF-8, separated by commas"):
            return _table(csv.reader(_lines(text, name), strict=True), name)
    finally:
        text.detach()


def _table(rows: Any, name: str) -> dict[str, npt.NDArray[Any]]:
    """Return the columns by array; `rows` is a reader of `csv`, which has no public type."""
    header: list[str] = next((row for row in rows if row), [])
    places = _places(header, name)
    table = array.array("d")
    count = 0
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{name}: line {rows.line_num} has {len(row):,} values and the header {len(header):,}; complete it"
            )
        table.extend(_numbers(row, header, f"{name}: line {rows.line_num}"))
        count += 1
        if count > MOST_RECORDS:
            raise DataError(f"{name} has more than {MOST_RECORDS:,} records; give a part of them")
    values = np.array(table, dtype=np.float64).reshape(count, len(header))
    return {key: values[:, columns] for key, columns in places.items()}


def _lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(
                f"{name} has a line of more than {_LONGEST_LINE:,} characters; end each record by a newline"
            )
        yield line


def _numbers(row: Sequence[str], header: Sequence[str], what: str) -> list[float]:
    try:
        return [float(value) for value in row]
    except ValueError:
        place = next(index for index, value in enumerate(row) if not _is_number(value))
        raise DataError(f"{what}: {header[place]} is {printable(row[place], longest=40)!r}; give a number") from None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _places(header: Sequence[str], name: str) -> dict[str, int | list[int]]:
    """Return where each array stands: one column, or a column for each class in the order of the classes."""
    if not header or len(header) > MOST_COLUMNS:
        raise DataError(f"{name} has {len(header):,} columns; give 1 to {MOST_COLUMNS:,}, with their names in line 1")
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{name} has two columns {printable(twice[0], longest=60)!r}; leave one out")
    wide: dict[str, dict[int, int]] = {}
    places: dict[str, int | list[int]] = {}
    for place, column in enumerate(header):
        if match := _WIDE.fullmatch(column):
            wide.setdefault(match[1], {})[int(match[2])] = place
        elif column in _KNOWN:
            places[column] = place
        else:
            raise DataError(
                f"{name}: column {printable(column, longest=60)!r} is unknown; known are member, label, "
                "owner, loss, score, and logits_0 ... or probabilities_0 ..."
            )
    for kind, columns in wide.items():
        if lacking := [number for number in range(len(columns)) if number not in columns]:
            raise DataError(f"{name}: column {kind}_{lacking[0]} is missing; give one for each class from 0 on")
        if kind in places:
            raise DataError(f"{name} has columns {kind} and {kind}_0; leave {kind} out")
        places[kind] = [columns[number] for number in range(len(columns))]
    return places
