"""Claims that were made already: an audit that was stopped, or is repeated, does not attack again."""

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attacks
from attacks.protocol import Attack, Claim
from auditor.evidence.claim_kind import claim_kinds
from auditor.plan.resolve import parameters_of
from auditor.subject import AttackTarget
from defenses.engine.code_digest import digest_of_folders, digest_of_training
from defenses.engine.storage import Storage
from defenses.errors import PlanError
from reports.untrusted import printable

logger = logging.getLogger(__name__)


def _kept() -> dict[str, type[Claim]]:
    """Return the types of claims that can be kept, by name."""
    return {claims.__name__: claims for claims, kind in claim_kinds().items() if kind.kept}


@dataclass(frozen=True)
class KeptClaims:
    """Claims by everything that they depend on.

    A claim is an attacker's guess, so it is kept as carefully as the scores are: in private, and only what this user
    sealed is found, because whoever can put scores there could decide the verdict. Copies of a model are not kept: they
    are networks.

    Attributes:
        storage: Where they are kept.
    """

    storage: Storage

    def key(self, attack: Attack, question: AttackTarget, *names: str, device: str) -> str:
        """Return the name of a claim: a digest of attack, target, records, code and versions."""
        about = {
            "attack": [type(attack).__module__, type(attack).__qualname__, parameters_of(attack)],
            "target": question.target.fingerprints,
            "names": names,
            "device": device,
            "threads": torch.get_num_threads(),
            "versions": [torch.__version__, np.__version__],
            "code": [
                digest_of_training(scheme=type(attack).__module__),
                digest_of_folders(Path(attacks.__path__[0])),
            ],
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:40]

    def find(self, key: str) -> tuple[Claim, float] | None:
        """Return a claim and the seconds that it took, or None if there is none that this user kept."""
        content = self.storage.read(f"{key}.claim")
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            fields: dict[str, Any] = {name: file[name] for name in file.files if name != "about"}
        fields |= {name: value for name, value in about["plain"].items() if name != "notes"}
        claim = _kept()[about["kind"]](**fields, notes=tuple(about["plain"]["notes"]))
        return claim, float(about["seconds"])

    def keep(self, key: str, claim: Claim, seconds: float) -> None:
        """Keep a claim, if it is of a kind that can be; one that cannot be written is made again the next time."""
        if type(claim).__name__ not in _kept():
            return
        values = vars(claim)
        arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in values.items() if name not in arrays}
        about = json.dumps({"kind": type(claim).__name__, "plain": plain, "seconds": seconds})
        content = io.BytesIO()
        np.savez(content, about=np.array(about), **arrays)
        try:
            self.storage.write(content.getvalue(), f"{key}.claim")
        except (OSError, PlanError) as error:  # the attack has run all the same, and what it found counts
            logger.warning("a claim is not kept: %s", printable(str(error)))
