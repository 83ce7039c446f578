"""Where trained models are kept: a private folder, or any place that fsspec reaches.

Whoever reads a location finds a model whole or not at all, however many processes and machines write to it.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from defenses.ensemble import Ensemble
from defenses.errors import CheckpointError, PlanError


class Storage(Protocol):
    """Keeps models by name; small and picklable, so that it can be sent to where models are trained."""

    def save(self, ensemble: Ensemble, k: int, name: str) -> None:
        """Write model `k` under `name`, replacing what is there, in one step."""

    def load(self, name: str) -> Ensemble | None:
        """Return the model of that name, or None if there is none or it is damaged."""

    def write(self, text: str, name: str) -> None:
        """Write a short text under `name`, in one step."""

    def read(self, name: str) -> str | None:
        """Return the text of that name, or None."""


@dataclass(frozen=True)
class Folder:
    """A local or mounted folder, made when first needed, readable by its owner only.

    Attributes:
        path: Absolute, because a worker may run elsewhere.
    """

    path: Path

    def save(self, ensemble: Ensemble, k: int, name: str) -> None:
        """Write beside the goal, then rename: two machines may train the same model at once."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".part-") as part:
            ensemble.save(Path(part) / name, k)
            os.replace(Path(part) / name, self.path / name)

    def load(self, name: str) -> Ensemble | None:
        """Return the model of that name, or None if there is none or it is damaged."""
        return _read(self.path / name) if (self.path / name).exists() else None

    def write(self, text: str, name: str) -> None:
        """Write beside the goal, then rename."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".part-") as part:
            (Path(part) / name).write_text(text, encoding="utf-8")
            os.replace(Path(part) / name, self.path / name)

    def read(self, name: str) -> str | None:
        """Return the text of that name, or None."""
        return (self.path / name).read_text(encoding="utf-8") if (self.path / name).exists() else None


@dataclass(frozen=True)
class Remote:
    """A place on an object store: s3://, gs://, memory:// and whatever else fsspec has a driver for.

    Attributes:
        url: Prefix of every name.
    """

    url: str

    def __post_init__(self) -> None:
        self._open()  # an unknown protocol or a missing driver is told before anything is trained

    def save(self, ensemble: Ensemble, k: int, name: str) -> None:
        """Upload the model; a put of an object store shows all of it or nothing."""
        system, root = self._open()
        with tempfile.TemporaryDirectory() as local:
            ensemble.save(Path(local) / name, k)
            system.makedirs(root, exist_ok=True)
            system.put_file(str(Path(local) / name), f"{root}/{name}")

    def load(self, name: str) -> Ensemble | None:
        """Download the model; asked for by name, because a listing may be stale."""
        system, root = self._open()
        with tempfile.TemporaryDirectory() as local:
            path = Path(local) / name
            try:
                system.get_file(f"{root}/{name}", str(path))
            except FileNotFoundError:
                return None
            return _read(path)

    def write(self, text: str, name: str) -> None:
        """Put the text."""
        system, root = self._open()
        system.makedirs(root, exist_ok=True)
        system.pipe_file(f"{root}/{name}", text.encode())

    def read(self, name: str) -> str | None:
        """Return the text of that name, or None."""
        system, root = self._open()
        try:
            found: bytes = system.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        return found.decode()

    def _open(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise PlanError(
                f"models cannot be kept at {self.url!r}: {error}; name a folder, or a URL that fsspec has a driver for"
            ) from error
        return system, root.rstrip("/")


def open_storage(folder: Path | str) -> Storage:
    """Return the place that a path or URL names.

    Args:
        folder: A path, ``file:///path``, or another URL.

    Raises:
        PlanError: If no driver for the URL is installed.
    """
    if isinstance(folder, str) and "://" in folder and not folder.startswith("file://"):
        return Remote(folder)
    return Folder(Path(str(folder).removeprefix("file://")).absolute())


def _read(path: Path) -> Ensemble | None:
    try:
        return Ensemble.load(path)
    except CheckpointError:
        return None  # a damaged file is as good as none: the model is trained again and the file replaced
