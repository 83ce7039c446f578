"""What is kept for later is authenticated: an item that this user did not write is as good as none.

Models, claims, layouts and secrets lie in a work folder or an object store, where somebody else may have put them: a
folder can come with a cloned repository. Each item therefore begins with two HMACs under a key of the user's own, which
lies outside of every work folder: that of its length is checked before the rest is read at all.
"""

import functools
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from defenses.errors import PlanError
from defenses.private_files import private_folder, write_private

TAG_SIZE = 32
HEAD_SIZE = 2 * TAG_SIZE
KEY_SIZE = 32


@dataclass(frozen=True)
class Authenticator:
    """Seals items and opens those that it sealed.

    Attributes:
        key: Secret, 32 bytes.
    """

    key: bytes = field(repr=False)

    def seal(self, content: bytes, name: str) -> bytes:
        """Return the content behind two tags: one binds its length to its name, the other all of it.

        Examples:
            >>> Authenticator(bytes(32)).open(Authenticator(bytes(32)).seal(b"w", "a.model"), "a.model")
            b'w'
        """
        return self._length_tag(len(content), name) + self._tag(content, name) + content

    def open(self, sealed: bytes, name: str) -> bytes | None:
        """Return the content, or None if this key did not seal it under this name."""
        head, content = sealed[:HEAD_SIZE], sealed[HEAD_SIZE:]
        known = self._is_of_length(head, len(content), name)
        return content if known and self._is_tag(head, content, name) else None

    def read(self, path: Path, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none or this key did not seal it under this name.

        A file that has not the length of what was sealed is not read any further, however long it is.
        """
        file = open_regular_file(path)
        if file is None:
            return None
        with file:
            length = os.fstat(file.fileno()).st_size - HEAD_SIZE
            head = file.read(HEAD_SIZE)
            if not self._is_of_length(head, length, name):
                return None
            content = file.read(length)
        return content if self._is_tag(head, content, name) else None

    def subkey(self, name: str) -> bytes:
        """Return a key of 32 bytes for another purpose; it tells nothing about this one."""
        return self._tag(b"", f"subkey {name}")

    def _tag(self, content: bytes, name: str) -> bytes:
        signed = hmac.new(self.key, len(name.encode()).to_bytes(8) + name.encode(), hashlib.sha256)
        signed.update(content)
        return signed.digest()

    def _length_tag(self, length: int, name: str) -> bytes:
        return self._tag(length.to_bytes(8), f"length\0{name}")  # no item has a zero byte in its name

    def _is_tag(self, head: bytes, content: bytes, name: str) -> bool:
        return hmac.compare_digest(head[TAG_SIZE:], self._tag(content, name))

    def _is_of_length(self, head: bytes, length: int, name: str) -> bool:
        return length >= 0 and hmac.compare_digest(head[:TAG_SIZE], self._length_tag(length, name))


def state_folder() -> Path:
    """Return the private folder that holds the user's key: ``$XDG_STATE_HOME/privacy-auditor``, made if need be.

    Raises:
        PlanError: If it cannot be made, or others than its owner can read it.
    """
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(base) / "privacy-auditor"
    try:
        return private_folder(folder)
    except OSError as error:
        raise PlanError(
            f"{folder}, which shall hold the key that authenticates kept models, cannot be made: {error.strerror}; "
            "set XDG_STATE_HOME to a folder that can be written"
        ) from error


def user_authenticator() -> Authenticator:
    """Return the authenticator of this user; its key is drawn from the system's entropy at first use.

    Raises:
        PlanError: If the key cannot be kept, or is damaged.
    """
    return _authenticator(state_folder())


@functools.cache
def _authenticator(folder: Path) -> Authenticator:
    path = folder / "key"
    with FileLock(folder / "key.lock", mode=0o600):
        if not path.exists():
            write_private(path, secrets.token_bytes(KEY_SIZE))
    key = read_regular(path, most=KEY_SIZE)
    if key is None or len(key) != KEY_SIZE:
        raise PlanError(
            f"{path} is damaged: it must hold {KEY_SIZE} bytes; delete it for a new key, and what was kept under the "
            "old one is made again"
        )
    return Authenticator(key)


def read_regular(path: Path, *, most: int) -> bytes | None:
    """Return what a regular file of at most so many bytes holds, or None if there is none of that name."""
    file = open_regular_file(path)
    if file is None:
        return None
    with file:
        return file.read(most) if os.fstat(file.fileno()).st_size <= most else None


def open_regular_file(path: Path) -> BinaryIO | None:
    """Open a regular file for reading, or return None if there is none of that name; waits for no FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None
