"""Files that a command leaves behind: whole or not at all, for their owner's eyes, and never yesterday's."""

from pathlib import Path

from defenses.private_files import write_private


def forget(path: Path) -> None:
    """Remove an earlier file, so that nobody takes it for the result of a run that then fails; only a regular one."""
    if path.is_file() and not path.is_symlink():
        path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 (mode 0600): whoever reads it finds all of it, or what was there before.

    What is not a regular file (`/dev/stdout`, a FIFO, a link) is written to as it is, and never replaced.

    Raises:
        OSError: If it cannot be written; nothing is left then.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(text.encode())
    else:
        write_private(path, text.encode())
