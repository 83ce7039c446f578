"""Where what was made is kept: a private folder, or any place that fsspec reaches.

Whoever reads a location finds an item whole or not at all, however many processes and machines write to it, and only
what was sealed with the same key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from defenses.authentication import Authenticator
from defenses.errors import PlanError
from defenses.private_files import private_folder, write_private


class Storage(Protocol):
    """Keeps items by name; small and picklable, so that it can be sent to where models are trained."""

    def write(self, content: bytes, name: str) -> None:
        """Keep an item under `name`, replacing what is there, in one step."""

    def read(self, name: str) -> bytes | None:
        """Return the item of that name, or None if there is none, it is damaged, or another key sealed it."""


@dataclass(frozen=True)
class Folder:
    """A local or mounted folder, made when first needed, readable by its owner only.

    Attributes:
        path: Absolute, because a worker may run elsewhere.
        authenticator: Seals what is written.
        durable: Whether what is written must survive a loss of power.
    """

    path: Path
    authenticator: Authenticator
    durable: bool = False

    def write(self, content: bytes, name: str) -> None:
        """Write beside the goal, then rename: two machines may train the same model at once."""
        sealed = self.authenticator.seal(content, name)
        write_private(private_folder(self.path) / name, sealed, durable=self.durable)

    def read(self, name: str) -> bytes | None:
        """Return the item of that name, or None."""
        return self.authenticator.read(self.path / name, name)


@dataclass(frozen=True)
class Remote:
    """An object store, or another file system that fsspec has a driver for.

    Attributes:
        url: Prefix of every name.
        authenticator: Seals what is written.
    """

    url: str
    authenticator: Authenticator

    def __post_init__(self) -> None:
        self._open()  # an unknown protocol or a missing driver is told before anything is trained

    def write(self, content: bytes, name: str) -> None:
        """Put the item; a put of an object store shows all of it or nothing."""
        system, root = self._open()
        system.makedirs(root, exist_ok=True)
        system.pipe_file(f"{root}/{name}", self.authenticator.seal(content, name))

    def read(self, name: str) -> bytes | None:
        """Return the item of that name, or None; asked for by name, because a listing may be stale."""
        system, root = self._open()
        try:
            sealed: bytes = system.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        return self.authenticator.open(sealed, name)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise PlanError(
                f"models cannot be kept at {self.url!r}: {error}; name a folder, or a URL that fsspec has a driver for"
            ) from error
        return system, root.rstrip("/")


def open_storage(folder: Path | str, authenticator: Authenticator) -> Storage:
    """Return the place that a path or URL names.

    Args:
        folder: A path, ``file:///path``, or another URL.
        authenticator: Seals what is written there; what another one sealed is not found.

    Raises:
        PlanError: If no driver for the URL is installed.
    """
    if isinstance(folder, str) and "://" in folder and not folder.startswith("file://"):
        return Remote(folder, authenticator)
    return Folder(Path(str(folder).removeprefix("file://")).absolute(), authenticator)
