"""Files that somebody else wrote: opened only if they are regular files, and read behind one guard.

Every reader of a plan, policy, report, checkpoint or data file goes through `open_regular` and `guarded`, so that a
hostile or damaged file ends in one error of the caller's choice, with one sentence, whatever a library raises.
"""

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

LONGEST = 300
"""Characters of foreign text that a message quotes at most."""

QUOTED = 80
"""Characters of one foreign value that a message quotes at most."""

# XML 1.0 has no way to write these characters at all, and a terminal obeys some of them.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))


@contextlib.contextmanager
def open_regular(path: Path, *, error: type[Exception], most: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for reading if it is a regular file; never waits for a FIFO and never reads a device.

    Args:
        path: The file; a symbolic link is followed.
        error: What to raise.
        most: Bytes that the file may have at most; None for any number.

    Yields:
        The open file, at its beginning.

    Raises:
        error: If it is not there, cannot be opened, is no regular file, or is larger than `most`.

    Examples:
        >>> with open_regular(Path("plan.toml"), error=ValueError, most=10**6) as file:  # doctest: +SKIP
        ...     text = file.read()
    """
    shown = printable(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as found:  # ValueError: a zero byte in the path
        reason = getattr(found, "strerror", None) or str(found)
        raise error(f"{shown} cannot be read: {reason}; give the path of a file") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        kind = next((name for test, name in _KINDS if test(about.st_mode)), "a device")
        raise error(f"{shown} is {kind}; give a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if most is not None and about.st_size > most:
            raise error(f"{shown} has {about.st_size:,} bytes; at most {most:,} are read here, so check the file")
        yield file


@contextlib.contextmanager
def guarded(
    what: str, *, error: type[Exception], remedy: str, keep: type[Exception] | tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn whatever a reader raises on foreign content into one error with one sentence.

    Args:
        what: What is read, usually its path.
        error: What to raise; an error of this type from inside is passed on as it is.
        remedy: What the reader of the message can do.
        keep: Further types that are passed on.

    Raises:
        error: Instead of any other exception, `MemoryError` and `RecursionError` included.

    Examples:
        >>> with guarded("plan.toml", error=ValueError, remedy="correct it"):
        ...     {}["key"]
        Traceback (most recent call last):
        ValueError: plan.toml cannot be read (KeyError: 'key'); correct it
    """
    kept = (error, *(keep if isinstance(keep, tuple) else (keep,)))
    try:
        yield
    except kept:
        raise
    except Exception as found:
        logger.debug("%s cannot be read", what, exc_info=True)
        reason = f"{type(found).__name__}: {found}" if str(found) else type(found).__name__
        raise error(f"{printable(what)} cannot be read ({printable(reason)}); {remedy}") from None


def printable(text: str, *, longest: int = LONGEST) -> str:
    r"""Return foreign text for a message: one line, no terminal escapes or lone surrogates, not longer than `longest`.

    Examples:
        >>> printable("a\x1b[31m\nb")
        'a\\x1b[31m b'
    """
    line = " ".join(text[: longest + 1].split())  # no more is looked at, whatever the length
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    return shown if len(text) <= longest and len(shown) <= longest else f"{shown[: longest - 4]} ..."


def quoted(value: object, *, longest: int = QUOTED) -> str:
    """Return a foreign value as a message quotes it: its `repr`, printable and short.

    Examples:
        >>> quoted("x" * 1000, longest=12)
        "'xxxxxxx ..."
    """
    if isinstance(value, str | bytes):
        value = value[: longest + 1]  # the repr of a megabyte is not needed to show its beginning
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a whole number of more than 70 digits"  # Python refuses to write very long ones
    return printable(repr(value), longest=longest)


def writable(text: str) -> str:
    r"""Return text for a file with U+FFFD for what XML cannot hold and terminals obey; line breaks and tabs stay.

    Examples:
        >>> writable("a\x1b\n") == "a\ufffd\n"
        True
    """
    return _UNWRITABLE.sub("\ufffd", text)
