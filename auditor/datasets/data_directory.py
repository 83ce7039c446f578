"""Where data sets lie: the folders searched, and the download that is tried when nothing is there."""

import contextlib
import http.client
import io
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from defenses.errors import DataError
from defenses.records import Records

Part = Literal["train", "test", "all"]

DATA_VARIABLE = "AUDITOR_DATA"
"""Environment variable that names the data directory."""

PATIENCE = 8.0
"""Seconds without an answer after which a download counts as failed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataDirectory:
    """The folders that are searched for a data set, and whether a download may follow.

    Attributes:
        folders: In the order of search; the last one is the cache that downloads go to.
        download: Whether the network may be used.
    """

    folders: tuple[Path, ...]
    download: bool

    @classmethod
    def at(cls, data_dir: Path | None, *, download: bool) -> "DataDirectory":
        """Open the data directory (or `AUDITOR_DATA` if None), with the user's cache behind it.

        Raises:
            DataError: If a data directory is named that does not exist.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "privacy-auditor"
        named = data_dir or os.environ.get(DATA_VARIABLE)
        if not named:
            return cls((cache,), download)
        folder = Path(named).expanduser()
        if not folder.is_dir():
            origin = "data_dir" if data_dir else DATA_VARIABLE
            raise DataError(
                f"the data directory {folder} ({origin}) does not exist; name an existing folder or leave it out"
            )
        return cls((folder, cache), download)

    def find(self, *names: str) -> tuple[Path, ...] | None:
        """Find files that lie in one folder together, each as it is or packed (`.gz`).

        Args:
            *names: Paths relative to a folder, with "/" between the parts.

        Returns:
            One path per name from the first folder that has all of them; None if no folder does.
        """
        for folder in self.folders:
            found = [
                next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None) for name in names
            ]
            present = tuple(path for path in found if path is not None)
            if len(present) == len(names):
                return present
        return None

    def obtain(
        self, *names: str, fetch: Callable[[Path], object] | None, name: str, instead: str = ""
    ) -> tuple[Path, ...]:
        """Find files as `find` does, or download them into the cache and find them there.

        Args:
            *names: Paths relative to a folder.
            fetch: Downloads the set into the folder that it is given; None if the set cannot be downloaded.
            name: What the data set is called in an error.
            instead: Files that would have served as well, for the error.

        Returns:
            One path per name.

        Raises:
            DataError: If the files are not there; it says what was looked for, where, and why no download helped.
        """
        if (found := self.find(*names)) is not None:
            return found
        if fetch is None:
            reason = "it cannot be downloaded automatically"
        elif not self.download:
            reason = "downloading is switched off"
        else:
            reason = self._download(fetch, name)
            if (found := self.find(*names)) is not None:
                return found
        wanted = " and ".join(names) + (f", or {instead}," if instead else "")
        where = " and ".join(str(folder) for folder in self.folders)
        raise DataError(
            f"{name} is not there: looked for {wanted} (or packed as .gz) in {where}, and {reason}; "
            f"put the files into a folder and name it with data_dir or {DATA_VARIABLE}"
        )

    def _download(self, fetch: Callable[[Path], object], name: str) -> str:
        cache = self.folders[-1]
        _log.info("downloading %s to %s", name, cache)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _hush():
                fetch(cache)
        except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return f"the download failed ({lines[-1] if lines else type(error).__name__})"
        return "the download brought other files"


@dataclass(frozen=True)
class DataSet:
    """One data set known by name; adding one is one entry in a dictionary.

    Attributes:
        summary: One line for a listing.
        read: Finds the files on a shelf and reads one part.
        parts: Whether the set was published with a train and a test part; if not, it is one pool.
    """

    summary: str
    read: Callable[[DataDirectory, Part], Records]
    parts: bool = False


@contextlib.contextmanager
def _hush() -> Iterator[None]:
    # Libraries print progress bars, print failed mirrors and wait for ever; a caller gets one sentence, soon.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    silent = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)
