"""The sealed file: candidates, coins and salt of a planting, readable by its owner only, bound to a commitment."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from defenses.errors import DataError
from defenses.records import BoolArray, Image, Records, Table

FORMAT = "privacy-auditor canaries 1"


@dataclass(frozen=True)
class Sealed:
    """What decides the truth of a later audit.

    Attributes:
        candidates: (m) all canaries, planted or not, encoded as the model takes records.
        included: (m,) bool: how the coins fell.
        kind: Kind of the canaries.
        data: File or folder name of the planted data set.
        data_digest: `data_digest` of it.
        reading: What it takes to read it back.
        salt: 32 random bytes (hex) that keep the commitment from being opened by trying.
    """

    candidates: Records
    included: BoolArray
    kind: str
    data: str
    data_digest: str
    reading: Mapping[str, Any]
    salt: str

    @property
    def commitment(self) -> str:
        """SHA-256 (hex) over salt, coins, candidates and what they were planted in: binds to all, tells nothing."""
        digest = hashlib.sha256(f"{FORMAT}:{self.salt}:".encode())
        digest.update(json.dumps(self._header(), sort_keys=True).encode())
        for array in self._arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def write(self, file: io.BufferedWriter) -> None:
        """Write everything into an open file."""
        header = self._header() | {"format": FORMAT, "salt": self.salt, "commitment": self.commitment}
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(file, header=text, **self._arrays())  # type: ignore[arg-type]  # typed as if a name might be allow_pickle

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sealed file.

        Args:
            path: The file; only its owner may have access to it.

        Raises:
            DataError: If it is not there, others can read it, it is not a sealed file, or it was changed since it was
                sealed.

        Example:
            >>> Sealed.read(Path("coins.sealed")).kind   # doctest: +SKIP
            'mislabelled'
        """
        if not path.is_file():
            raise DataError(f"there is no sealed file {path}; name the one that auditor plant wrote")
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise DataError(
                f"{path} has mode {mode:04o}, so others than its owner can read or change the coins; if nobody who "
                "trains has seen it, close it with chmod 600, else plant anew"
            )
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                held = dict(arrays)
            header = json.loads(held.pop("header").tobytes())
            if header.pop("format") != FORMAT:
                raise ValueError("it has another format")
            committed, about = header.pop("commitment"), header.pop("records")
            groups = {key: held[key] for key in ("owner", "cluster") if key in held}
            kind: Image | Table = TypeAdapter(Table if "columns" in about["kind"] else Image).validate_python(
                about["kind"]
            )
            candidates = Records(held["x"], held["y"], about["classes"], kind, about["name"], **groups)
            found = cls(candidates, held["coins"].astype(np.bool_), **header)
            whole = found.commitment == committed and len(found.included) == len(candidates)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ValidationError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{path} is not a sealed file of auditor plant, or is damaged ({reason}); name the one that belongs to "
                "this model's data"
            ) from None
        if not whole:
            raise DataError(
                f"{path} was changed since it was sealed: coins, candidates and salt do not give the commitment in it; "
                "use the file as auditor plant wrote it"
            )
        return found

    def _header(self) -> dict[str, Any]:
        about = {
            "classes": self.candidates.classes,
            "kind": asdict(self.candidates.kind),
            "name": self.candidates.name,
        }
        return {
            "records": about,
            "kind": self.kind,
            "data": self.data,
            "data_digest": self.data_digest,
            "reading": dict(self.reading),
        }

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "coins": self.included.astype(np.uint8),
            "x": self.candidates.x,
            "y": self.candidates.y,
        }
        for key in ("owner", "cluster"):
            if (value := getattr(self.candidates, key)) is not None:
                arrays[key] = value
        return arrays


def data_digest(records: Records) -> str:
    """Return SHA-256 (hex) over a data set whatever the order of its records, so that saving it anew does no harm."""
    digest = hashlib.sha256(repr((records.shape, records.classes)).encode())
    for row in sorted(records.row_digests()):
        digest.update(row)
    return digest.hexdigest()
