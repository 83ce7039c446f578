"""Zip archives that somebody else wrote: the directory is read and checked before any member is."""

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, BinaryIO

from reports.untrusted import printable

__all__ = ["fill", "members_of"]

_DIRECTORY = 8 * 2**20
"""Bytes that an archive's directory may have; about 80,000 members of usual names."""

_LOCAL_HEADER = 30  # bytes before a member's name and content, at least
_ENCRYPTED = 1
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Bounded(io.BufferedReader):
    """An archive that gives at most `_DIRECTORY` bytes at once, because `zipfile` reads a directory in one go."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _DIRECTORY:
            size = _DIRECTORY + 1
            if len(found := super().read(size)) == size:
                raise ValueError(f"its directory has more than {_DIRECTORY:,} bytes")
            return found
        return super().read(size)


@contextlib.contextmanager
def members_of(
    file: BinaryIO, name: str, *, most: int, error: type[Exception]
) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]]:
    """Open a zip archive and check its directory.

    Args:
        file: The open file.
        name: What to call it in an error.
        most: Members that it may have.
        error: What to raise.

    Yields:
        The archive, and its members by name in their order.

    Raises:
        error: If there are too many members, two of one name, members that overlap, or one that is encrypted or
            compressed in another way than deflate.
        Exception: Whatever `zipfile` raises on damage; the caller is inside `guarded`.
    """
    bounded = _Bounded(file)  # type: ignore[arg-type]  # any binary file is raw enough to be read through a buffer
    try:
        with zipfile.ZipFile(bounded) as archive:
            yield archive, _checked(archive, printable(name), most=most, error=error)
    finally:
        bounded.detach()


def _checked(archive: zipfile.ZipFile, name: str, *, most: int, error: type[Exception]) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > most:
        raise error(f"{name} has {len(listed):,} members, and at most {most:,} are read; save fewer arrays in one file")
    found: dict[str, zipfile.ZipInfo] = {}
    for member in listed:
        shown = printable(member.filename, longest=60)
        if member.filename in found:
            raise error(f"{name} has two members {shown!r}; write the file again")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise error(f"{name}: member {shown!r} is encrypted or compressed by an unusual method; write it again")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise error(f"{name}: member {shown!r} states two sizes for the same bytes; write the file again")
        found[member.filename] = member
    places = sorted((one.header_offset, one.header_offset + _LOCAL_HEADER + one.compress_size) for one in listed)
    ends = [start for start, _ in places[1:]] + [archive.start_dir]
    if any(end > following for (_, end), following in zip(places, ends, strict=True)):
        raise error(f"{name} has members that overlap, so its sizes cannot be true; write the file again")
    return found


def fill(stream: IO[bytes], room: memoryview) -> None:
    """Read as many bytes as there is room for, a piece at a time.

    Raises:
        EOFError: If the stream ends before.
    """
    for start in range(0, len(room), _CHUNK):
        wanted = min(_CHUNK, len(room) - start)
        if len(piece := stream.read(wanted)) != wanted:
            raise EOFError(f"it ends {len(room) - start - len(piece):,} bytes early")
        room[start : start + wanted] = piece
