"""Files that a command leaves behind: whole or not at all, and never yesterday's."""

import os
from pathlib import Path


def forget(path: Path) -> None:
    """Remove an earlier file, so that nobody takes it for the result of a run that then fails; only a regular one."""
    if path.is_file() and not path.is_symlink():
        path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8: who reads it finds all of it, or what was there before.

    What is not a regular file (`/dev/stdout`, a FIFO, a link) is written to as it is, and never replaced.

    Raises:
        OSError: If it cannot be written; nothing is left then.
    """
    content = text.encode()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
