"""The folder an audit works in: trained models, secrets that stay out of reports, and the list of attempts."""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defenses.errors import PlanError
from defenses.store import ModelStore


@dataclass(frozen=True)
class Workplace:
    """A private folder (mode 0700) that makes a run resumable and keeps its secrets.

    Attributes:
        folder: Where everything is kept.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def store(self) -> ModelStore:
        """Return the store of trained models."""
        return ModelStore(self.folder / "models")

    def record_key(self) -> bytes:
        """Return the key of the record hashes in reports; who has it can find a record again, who has not cannot."""
        return bytes.fromhex(self._secret("record-key"))

    def secret_seed(self, subject: str) -> int:
        """Return the secret seed of a subject: drawn once from the system's entropy, kept for resuming."""
        return int(self._secret(f"seed-{subject[:16]}"), 16)

    def commitment(self, subject: str, seed: int) -> str:
        """Return a salted SHA-256 of a seed: it can be opened later, and tells nothing now."""
        salt = self._secret(f"salt-{subject[:16]}")
        return hashlib.sha256(f"{salt}:{seed}".encode()).hexdigest()

    def attempt(self, subject: str, run: str) -> int:
        """Record a run about a subject and return its number from 1; the same run again keeps its number.

        Args:
            subject: What is judged: data, model, recipe and scheme, without seed, attacks and limits.
            run: The target that was drawn or given for it.
        """
        path = self.folder / "attempts.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise PlanError(f"{path} is damaged ({error}); restore it, or delete it and lose the count") from error
        runs = found.setdefault(subject, [])
        if run not in runs:
            runs.append(run)
            write_private(path, json.dumps(found, indent=2, sort_keys=True).encode())
        return int(runs.index(run)) + 1

    def _secret(self, name: str) -> str:
        path = self.folder / "secrets" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            write_private(path, secrets.token_hex(32).encode())
        found = path.read_text()
        if len(found) != 64 or set(found) - set("0123456789abcdef"):
            raise PlanError(
                f"{path} is damaged: it must hold 64 hexadecimal digits; restore it, or delete it for a new one"
            )
        return found


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read (mode 0600), atomically."""
    _write(path, content, 0o600)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: who reads it finds all of it, or what was there before."""
    _write(path, text.encode(), 0o666)  # less the umask, as any new file


def _write(path: Path, content: bytes, mode: int) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
