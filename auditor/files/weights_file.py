"""The two kinds of files that weights come in: safetensors, and what `torch.save` writes, of version 1.6 or before."""

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from auditor.files.archives import fill, members_of
from auditor.files.memory_budget import check_budget
from auditor.files.state_pickle import LONGEST_PICKLE, Refused, Storage, described
from defenses.errors import CheckpointError
from reports.untrusted import guarded

__all__ = ["CONVERT", "Contents", "contents_of"]

CONVERT = (
    "load it where it was trained and save only the weights, with torch.save(model.state_dict(), 'weights.pt') or "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)
"""How a checkpoint that cannot be read safely becomes one that can."""

MOST_MEMBERS = 50_000
"""Members that an archive of torch.save may have: one for each storage, and about six more."""

# A file of torch.save before version 1.6 begins with this number, pickled.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library
_LONGEST_HEADER = 16 * 2**20  # bytes; 100,000 tensors need about 10 million


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        tree: Dictionaries, plain values and tensors; those of `torch.save` are `Stored`, and not read yet.
        read: Reads the bytes of a storage.
    """

    tree: Any
    read: Callable[[Storage], bytearray]


@contextlib.contextmanager
def contents_of(file: BinaryIO, name: str, *, size: int, max_memory: int) -> Iterator[Contents]:
    """Find out by its content what a file is, and describe what it holds.

    Args:
        file: The open file, at its beginning.
        name: What errors call it.
        size: Bytes that it has.
        max_memory: Bytes of memory that reading may take.

    Yields:
        The contents, which can be read while the context is open.

    Raises:
        CheckpointError: If it could run code on loading, contradicts itself, or is neither kind.
        Exception: Anything on damage; the caller is inside `guarded`.
    """
    head = file.read(64)
    file.seek(0)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= min(size - 8, _HEADER_LIMIT):
        yield Contents(_safetensors(file, name, header=header, size=size, max_memory=max_memory), _nothing)
    elif head.startswith(b"PK\x03\x04"):
        with _archive(file, name, max_memory=max_memory) as contents:
            yield contents
    elif head.startswith(b"\x80") and _LEGACY_MAGIC in head[:16]:
        yield _legacy(file, name, size=size, max_memory=max_memory)
    else:
        raise CheckpointError(f"{name} {_reason(file, head)}")


def _nothing(storage: Storage) -> bytearray:
    raise KeyError(storage.key)


def _safetensors(file: BinaryIO, name: str, *, header: int, size: int, max_memory: int) -> Mapping[str, Any]:
    from safetensors.torch import load

    if header > _LONGEST_HEADER:
        raise CheckpointError(
            f"{name} has a header of {header:,} bytes, and at most {_LONGEST_HEADER:,} are read; save fewer tensors"
        )
    # The library is given what was opened and not the path; it copies each tensor once.
    check_budget(2 * size, max_memory, name, error=CheckpointError)
    with guarded(name, error=CheckpointError, remedy="it is a damaged safetensors file, so copy or save it again"):
        return load(file.read())


@contextlib.contextmanager
def _archive(file: BinaryIO, name: str, *, max_memory: int) -> Iterator[Contents]:
    damaged = "it is a damaged archive, so copy or save it again"
    with (
        guarded(name, error=CheckpointError, remedy=damaged),
        members_of(file, name, most=MOST_MEMBERS, error=CheckpointError) as (archive, members),
    ):
        inside = {one.split("/", 1)[-1]: one for one in members}
        if "constants.pkl" in inside or any(part.startswith("code/") for part in inside):
            raise CheckpointError(
                f"{name} is a TorchScript archive, which is a program and not only weights, so it was not read; "
                f"{CONVERT}"
            )
        if "data.pkl" not in inside:
            raise CheckpointError(f"{name} is a zip archive that torch.save did not write; {CONVERT}")
        root = inside["data.pkl"].removesuffix("data.pkl")
        if len(inside) < len(members) or any(one.compress_type for one in members.values()):
            raise CheckpointError(
                f"{name} has compressed members or several folders, and torch.save writes neither; {CONVERT}"
            )

        def read(member: str, nbytes: int) -> bytearray:
            if (there := members[root + member].file_size) != nbytes:
                raise CheckpointError(f"{name}: {member} has {there:,} bytes and not {nbytes:,}; copy or save it again")
            room = bytearray(nbytes)
            with archive.open(members[root + member]) as stream:
                fill(stream, memoryview(room))
                stream.read(1)  # at its end the checksum is compared
            return room

        if "byteorder" in inside and read("byteorder", members[root + "byteorder"].file_size) != b"little":
            raise CheckpointError(f"{name} has numbers in big-endian order; save it again on a little-endian machine")
        length = members[root + "data.pkl"].file_size
        _check_pickle(length, name, max_memory=max_memory)
        tree, _ = _read_pickle(io.BytesIO(read("data.pkl", length)), name)
        yield Contents(tree, lambda storage: read(f"data/{storage.key}", storage.nbytes))


def _legacy(file: BinaryIO, name: str, *, size: int, max_memory: int) -> Contents:
    """Read the five pickles that come first, and find where each storage lies behind them."""
    head = io.BytesIO(file.read(LONGEST_PICKLE))
    _check_pickle(len(head.getbuffer()), name, max_memory=max_memory)
    _, _, about, (tree, storages), (keys, _) = (_read_pickle(head, name) for _ in range(5))
    if not about[0]["little_endian"]:
        raise CheckpointError(f"{name} has numbers in big-endian order; save it again on a little-endian machine")
    places: dict[str, int] = {}
    place = head.tell()
    for key in keys:
        file.seek(place)
        if int.from_bytes(file.read(8), "little") != storages[key].count or key in places:
            raise ValueError("a storage states two sizes")
        places[key] = place + 8
        place += 8 + storages[key].nbytes
        if place > size:
            raise EOFError(f"it ends {place - size:,} bytes early")

    def read(storage: Storage) -> bytearray:
        room = bytearray(storage.nbytes)
        file.seek(places[storage.key])
        fill(file, memoryview(room))
        return room

    return Contents(tree, read)


def _check_pickle(length: int, name: str, *, max_memory: int) -> None:
    if length > LONGEST_PICKLE:
        raise CheckpointError(
            f"{name} describes its tensors in {length:,} bytes, and at most {LONGEST_PICKLE:,} are read; {CONVERT}"
        )
    # An empty dictionary is one byte of a pickle, and about 100 of memory.
    check_budget(100 * length, max_memory, name, error=CheckpointError)


def _read_pickle(file: BinaryIO, name: str) -> tuple[Any, Mapping[str, Storage]]:
    try:
        return described(file)
    except Refused as needed:
        raise CheckpointError(
            f"{name} holds more than weights, or is damaged: reading it would call {needed}, which could run code, so "
            f"it was not read; {CONVERT}"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{name} {error}") from None


def _reason(file: BinaryIO, head: bytes) -> str:
    """Say why a file is not read at all."""
    if head.startswith(b"\x80"):
        return f"is a pickle, which could run code when it is read, so it was not read; {CONVERT}"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"ZF", b"\x78")):
        return f"is compressed, as joblib writes its pickles, which could run code, so it was not read; {CONVERT}"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself; fetch it with git lfs pull"
    if tarfile.is_tarfile(io.BytesIO(file.read(2**20))):
        return f"is a tar archive; unpack it and name the file with the weights, or {CONVERT}"
    # A pickle of protocol 0 has no mark of its own, so whatever is left might be one.
    return f"is neither a safetensors file nor one of torch.save, and may be a pickle, so it was not read; {CONVERT}"
