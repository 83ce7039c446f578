"""The folder an audit works in: trained models, claims, and secrets that stay out of reports."""

import hashlib
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from defenses.authentication import Authenticator, user_authenticator
from defenses.engine.storage import Folder
from defenses.engine.store import ModelStore
from defenses.private_files import private_folder

logger = logging.getLogger(__name__)

SECRETS, MODELS, CLAIMS, GENERATORS = PARTS = ("secrets", "models", "claims", "generators")


@dataclass(frozen=True)
class Workspace:
    """A private folder (mode 0700) that makes a run resumable and keeps its secrets.

    Everything in it is sealed with this user's key (`defenses.authentication`). What somebody else put there is not
    found, and is made again.

    Attributes:
        folder: Where everything is kept.

    Raises:
        PlanError: If others than this user own, read or change the folder, or a part of it.
    """

    folder: Path

    def __post_init__(self) -> None:
        private_folder(self.folder)
        for part in PARTS:
            if os.path.lexists(self.folder / part):  # better known now than when the first item is to be written
                private_folder(self.folder / part)

    @property
    def authenticator(self) -> Authenticator:
        """What seals everything that is kept here."""
        return user_authenticator()

    def store(self) -> ModelStore:
        """Return the store of trained models."""
        return ModelStore(self.folder / MODELS, authenticator=self.authenticator)

    def kept(self, name: str, *, durable: bool = False) -> Folder:
        """Return the part of the folder that keeps one kind of item.

        Args:
            name: Of the sub-folder.
            durable: Whether an item must survive a loss of power.
        """
        return Folder((self.folder / name).absolute(), self.authenticator, durable)

    def record_key(self) -> bytes:
        """Return the key of the record hashes and data digests in reports; it is the same in all of a user's folders.

        With it, the hash of a known record can be computed, and reports about the same data recognise each other.
        """
        return self.authenticator.subkey("record-key")

    def secret_seed(self, content: str) -> int:
        """Return the secret seed of a training: drawn once from the system's entropy, and kept for resuming.

        Args:
            content: Digest of everything that the training's output depends on, so that no two outputs that could
                differ ever share their noise.
        """
        return int.from_bytes(self._secret(f"seed-{content[:40]}"))

    def commitment(self, content: str, seed: int) -> str:
        """Return a salted SHA-256 of a seed: it can be opened later, and tells nothing now."""
        salt = self._secret(f"salt-{content[:40]}").hex()
        return hashlib.sha256(f"{salt}:{seed}".encode()).hexdigest()

    def _secret(self, name: str) -> bytes:
        kept = self.kept(SECRETS, durable=True)
        found = kept.read(name)
        if found is not None:
            return found
        with FileLock(private_folder(kept.path) / ".lock", mode=0o600):  # or two processes would draw two
            found = kept.read(name)
            if found is None:
                if (kept.path / name).exists():
                    logger.warning("the secret %s was damaged or written by somebody else, and is drawn anew", name)
                found = secrets.token_bytes(32)
                kept.write(found, name)
        return found
