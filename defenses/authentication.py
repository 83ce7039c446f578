"""What is kept for later is authenticated: an item that this user did not write is as good as none.

Models, claims, layouts and secrets lie in a work folder or an object store, where somebody else may have put them: a
folder can come with a cloned repository. Each item therefore begins with an HMAC under a key of the user's own, which
lies outside of every work folder.
"""

import functools
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from defenses.errors import PlanError
from defenses.private_files import private_folder, write_private

TAG_SIZE = 32
KEY_SIZE = 32


@dataclass(frozen=True)
class Authenticator:
    """Seals items and opens those that it sealed.

    Attributes:
        key: Secret, 32 bytes.
    """

    key: bytes = field(repr=False)

    def seal(self, content: bytes, name: str) -> bytes:
        """Return the content behind a tag that binds it to its name.

        Example:
            >>> Authenticator(bytes(32)).open(Authenticator(bytes(32)).seal(b"w", "a.model"), "a.model")
            b'w'
        """
        return self._tag(content, name) + content

    def open(self, sealed: bytes, name: str) -> bytes | None:
        """Return the content, or None if this key did not seal it under this name."""
        tag, content = sealed[:TAG_SIZE], sealed[TAG_SIZE:]
        return content if hmac.compare_digest(tag, self._tag(content, name)) else None

    def subkey(self, name: str) -> bytes:
        """Return a key of 32 bytes for another purpose; it tells nothing about this one."""
        return self._tag(b"", f"subkey {name}")

    def _tag(self, content: bytes, name: str) -> bytes:
        signed = hmac.new(self.key, len(name.encode()).to_bytes(8) + name.encode(), hashlib.sha256)
        signed.update(content)
        return signed.digest()


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
    key = read_regular(path)
    if key is None or len(key) != KEY_SIZE:
        raise PlanError(
            f"{path} is damaged: it must hold {KEY_SIZE} bytes; delete it for a new key, and what was kept under the "
            "old one is made again"
        )
    return Authenticator(key)


def read_regular(path: Path) -> bytes | None:
    """Return what a regular file holds, or None if there is none of that name; waits for no FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
