"""The only reader of `.npz` files: shapes and types are compared with sizes and budget first, nothing is unpickled."""

import io
import math
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from auditor.files.archives import fill, members_of
from auditor.files.memory_budget import check_budget, default_budget
from defenses.errors import DataError
from reports.untrusted import guarded, open_regular, printable

__all__ = ["arrays_in", "read_npz"]

Array = npt.NDArray[Any]

MOST_ARRAYS = 1000
"""Arrays that one file may hold."""

_ENDING = ".npy"
_NUMBERS = "biuf"
_HEADER = 12 + 10_000  # bytes; numpy itself parses no longer header
_WORKING = 8  # bytes per number: arrays are turned into float32, float64 or int64 after they are read


def read_npz(
    path: Path,
    *keys: str,
    optional: Collection[str] = (),
    only: bool = False,
    max_memory: int | None = None,
) -> dict[str, Array]:
    """Read arrays of numbers from an `.npz` file, never unpickling.

    Args:
        path: The file.
        *keys: Names of the arrays that it must hold.
        optional: Names of arrays that are read if they are there.
        only: Whether arrays of other names are refused; else they are left unread.
        max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

    Returns:
        The arrays by name.

    Raises:
        DataError: If the file is not a regular file, is damaged, lacks an array, holds an array of something else than
            real numbers, or would need more memory than the budget.

    Examples:
        >>> arrays = read_npz(Path("digits.npz"), "x", "y", optional=("owner",))  # doctest: +SKIP
    """
    with open_regular(path, error=DataError) as file:
        return arrays_in(file, str(path), *keys, optional=optional, only=only, max_memory=max_memory)


def arrays_in(
    file: BinaryIO,
    name: str,
    *keys: str,
    optional: Collection[str] = (),
    only: bool = False,
    max_memory: int | None = None,
    kind: str = "a readable .npz file",
    remedy: str = "write it with numpy.savez",
) -> dict[str, Array]:
    """Read arrays from a file that is open already; see `read_npz`.

    Args:
        file: The open file.
        name: What errors call it.
        *keys: As for `read_npz`, like the arguments that are not named here.
        optional: As for `read_npz`.
        only: As for `read_npz`.
        max_memory: As for `read_npz`.
        kind: What a file that cannot be read is not.
        remedy: What can be done then.

    Returns:
        The arrays by name.

    Raises:
        DataError: As for `read_npz`.
    """
    budget = default_budget() if max_memory is None else max_memory
    shown = printable(name)
    with (
        guarded(f"{shown} is not {kind}: it", error=DataError, remedy=remedy),
        members_of(file, name, most=MOST_ARRAYS, error=DataError) as (archive, members),
    ):
        there = {one.removesuffix(_ENDING): member for one, member in members.items() if one.endswith(_ENDING)}
        if absent := [key for key in keys if key not in there]:
            raise DataError(f"{shown} has no array {absent[0]!r}; it needs {', '.join(keys)} and holds {_few(there)}")
        known = list(dict.fromkeys((*keys, *optional)))
        other = [one.removesuffix(_ENDING) for one in members if one.removesuffix(_ENDING) not in known]
        if only and other:
            raise DataError(f"{shown}: array {printable(other[0], longest=60)!r} is unknown; known are {_few(known)}")
        wanted = {key: there[key] for key in known if key in there}
        heads = {key: _head(archive, member, f"{shown}: {key}") for key, member in wanted.items()}
        needed = sum(_numbers(shape) * (dtype.itemsize + _WORKING) for shape, _, dtype, _ in heads.values())
        check_budget(needed, budget, shown, error=DataError)
        return {key: _values(archive, member, heads[key]) for key, member in wanted.items()}


Head = tuple[tuple[int, ...], bool, np.dtype[Any], int]
"""Shape, whether the first axis varies fastest, type, and where the numbers begin."""


def _head(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> Head:
    """Read what an array says of itself, and compare it with the size of the member."""
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(_HEADER))
    version = npy.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{what} is in version {version} of the .npy format; save plain arrays of numbers")
    parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header of Python 2 is read all the same
        shape, columns_first, dtype = parse(start)
    if dtype.hasobject:
        raise DataError(
            f"{what} holds pickled objects, which could run code when read; save plain number arrays instead: "
            "numpy.savez(path, x=..., y=...)"
        )
    if dtype.kind not in _NUMBERS:
        shown = printable(str(dtype), longest=60)
        raise DataError(f"{what} holds {shown}, not numbers; save real numbers, such as float32 or int64")
    if min(shape, default=0) < 0 or start.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        shown = printable(str(shape), longest=60)
        raise DataError(f"{what} states shape {shown} of {dtype}, but has {member.file_size:,} bytes; save it again")
    return shape, columns_first, dtype, start.tell()


def _numbers(shape: tuple[int, ...]) -> int:
    """Return how many numbers an array is charged with: an empty one for its longest axis, which others may match."""
    return max(math.prod(shape), *shape, 1)


def _values(archive: zipfile.ZipFile, member: zipfile.ZipInfo, head: Head) -> Array:
    shape, columns_first, dtype, begin = head
    values: Array = np.empty(math.prod(shape), dtype)
    room = values.view(np.uint8).data if values.nbytes else memoryview(b"")
    with archive.open(member) as stream:
        stream.read(begin)
        fill(stream, room)
        stream.read(1)  # at its end the checksum is compared
    return values.reshape(shape[::-1]).transpose() if columns_first else values.reshape(shape)


def _few(names: Collection[str]) -> str:
    shown = [printable(one, longest=24) for one in list(names)[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"
