"""Keep memory that was freed for the next step, instead of handing it back to the system and asking again.

A training step allocates and frees the same tens of megabytes over and over. By default the C library returns them each
time, and the system clears every page before it lends it again, which costs more than the arithmetic of small networks.
"""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch

# Parameters of mallopt(3) in glibc: above what size blocks are mapped on their own, how much free space is kept.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # the most that glibc accepts


@contextlib.contextmanager
def freed_memory_is_kept() -> Iterator[None]:
    """Within the block, freed memory stays with the process; afterwards it goes back. Only glibc knows how."""
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        library.malloc_trim(0)


@functools.cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt.argtypes, library.malloc_trim.argtypes = [ctypes.c_int, ctypes.c_int], [ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    return library


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on whatever device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
