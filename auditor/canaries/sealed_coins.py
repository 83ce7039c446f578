"""The sealed file: candidates, coins and salt of a planting, readable by its owner only, bound to a commitment."""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from auditor.files.npz import arrays_in
from defenses.errors import DataError
from defenses.records import BoolArray, Image, Records, Table
from reports.untrusted import guarded, open_regular, printable

FORMAT: Literal["privacy-auditor canaries 1"] = "privacy-auditor canaries 1"

_KIND = "a sealed file of auditor plant"
_DAMAGED = f"it is not {_KIND}, or is damaged; name the one that belongs to this model's data"


@dataclass(frozen=True)
class SealedCoins:
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
    def read(cls, path: Path, *, max_memory: int | None = None) -> Self:
        """Read a sealed file.

        Args:
            path: The file; only its owner may have access to it.
            max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

        Raises:
            DataError: If it is not there, others can read it, it is not a sealed file, or it was changed since it was
                sealed.

        Examples:
            >>> Sealed.read(Path("coins.sealed")).kind   # doctest: +SKIP
            'mislabelled'
        """
        shown = printable(str(path))
        with open_regular(path, error=DataError) as file, guarded(shown, error=DataError, remedy=_DAMAGED):
            _refuse_open(os.fstat(file.fileno()).st_mode & 0o777, shown)
            held = _arrays(file, shown, max_memory=max_memory)
            header = _Header.model_validate_json(held["header"].tobytes())
            about = header.records
            groups = {key: held[key] for key in ("owner", "cluster") if key in held}
            candidates = Records(held["x"], held["y"], about.classes, about.form(), about.name, **groups)
            coins = held["coins"]
            if coins.shape != (len(candidates),) or not np.isin(coins, (0, 1)).all():
                raise ValueError("it does not hold one coin for each canary")
            _refuse_unlike(candidates)
            found = cls(
                candidates,
                coins.astype(np.bool_),
                header.kind,
                header.data,
                header.data_digest,
                header.reading,
                header.salt,
            )
            if found.commitment != header.commitment:
                raise DataError(
                    f"{shown} was changed since it was sealed: coins, candidates and salt do not give the commitment "
                    "in it; use the file as auditor plant wrote it"
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


class _About(BaseModel):
    """What is said of the canaries beside their numbers."""

    model_config = ConfigDict(extra="forbid")

    classes: int = Field(ge=1, strict=True)
    kind: dict[str, Any]
    name: str

    def form(self) -> Image | Table:
        """Return what a record is."""
        shape: TypeAdapter[Any] = TypeAdapter(Table if "columns" in self.kind else Image)
        found: Image | Table = shape.validate_python(self.kind)
        return found


class _Header(BaseModel):
    """What the array `header` says, as JSON."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["privacy-auditor canaries 1"]
    salt: str
    commitment: str
    records: _About
    kind: str
    data: str = Field(pattern=r"^[^/\x00]+$")
    data_digest: str
    reading: dict[str, Any]


def _arrays(file: BinaryIO, name: str, *, max_memory: int | None) -> dict[str, np.ndarray[Any, Any]]:
    needed, groups = ("header", "coins", "x", "y"), ("owner", "cluster")
    remedy = "name the one that belongs to this model's data"
    return arrays_in(file, name, *needed, optional=groups, max_memory=max_memory, kind=_KIND, remedy=remedy)


def _refuse_open(mode: int, path: str) -> None:
    if mode & 0o077:
        raise DataError(
            f"{path} has mode {mode:04o}, so others than its owner can read or change the coins; if nobody who "
            "trains has seen it, close it with chmod 600, else plant anew"
        )


def _refuse_unlike(candidates: Records) -> None:
    """Refuse canaries whose description is not that of their numbers."""
    kind = candidates.kind
    if candidates.x.ndim != (2 if isinstance(kind, Table) else 4) or candidates.y.ndim != 1:
        raise ValueError(f"canaries of shape {candidates.x.shape} are not what it describes")
    if isinstance(kind, Table):
        ends = [column.start + column.width for column in kind.columns]
        starts = [column.start for column in kind.columns]
        if [*starts, candidates.x.shape[1]] != [0, *ends] or len(kind.classes) != candidates.classes:
            raise ValueError("the columns or classes of its table do not fit its canaries")
    elif not -math.inf < kind.low < kind.high < math.inf:
        raise ValueError(f"pixels are said to lie between {kind.low} and {kind.high}")


def data_digest(records: Records) -> str:
    """Return SHA-256 (hex) over a data set whatever the order of its records, so that saving it anew does no harm."""
    digest = hashlib.sha256(repr((records.shape, records.classes)).encode())
    for row in sorted(records.row_digests()):
        digest.update(row)
    return digest.hexdigest()
