"""Files and folders for their owner's eyes alone: made with mode 0600 and 0700, written whole or not at all."""

import glob
import os
import re
import secrets
import socket
import stat
from pathlib import Path

from defenses.errors import PlanError

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "here"


def private_folder(path: Path) -> Path:
    """Make a folder with mode 0700, or check one that is there.

    Args:
        path: The folder; its parents are made as well.

    Returns:
        The same path.

    Raises:
        PlanError: If it is no folder, belongs to another user, or another user may read or change it. Somebody else
            could have put models, scores or secrets there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError:
        raise PlanError(f"{path} is not a folder; name another one") from None
    about = path.stat()
    if not stat.S_ISDIR(about.st_mode):
        raise PlanError(f"{path} is not a folder; name another one")
    if about.st_uid != os.geteuid():
        raise PlanError(f"{path} belongs to another user (uid {about.st_uid}); name a folder of your own")
    if about.st_mode & 0o077:
        raise PlanError(
            f"{path} has mode {about.st_mode & 0o777:04o}, so others than its owner can read or change it; if nobody "
            f"else has, close it with chmod 700, otherwise delete it or name another folder"
        )
    return path


def write_private(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file that only its owner can read (mode 0600), atomically: all of it, or what was there before.

    What a killed process of this machine left of an earlier attempt is removed.

    Args:
        path: The file; its folder exists.
        content: What it shall hold.
        durable: Whether it must survive a loss of power; False for what can be made again.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{_HOST}-*.part"):
        if not _runs(left.name.split("-")[-2]):
            left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        flush_folder(path.parent)


def _runs(number: str) -> bool:
    """Say whether there is a process of this number on this machine."""
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass  # somebody else's, or no number of ours: it is not removed
    return True


def flush_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
