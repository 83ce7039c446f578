"""The protocol of a kind of claim: how it joins the truth, what is measured of it, and what reports call it.

Each kind is one file of this folder. Whoever handles claims asks the kind, so that a new one changes nothing else but
the registry of measures, if it brings measures of its own.
"""

import abc
import functools
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np

from attacks.protocol import Attack, Claim
from auditor.evidence.ranking import Ranking
from auditor.subject import AttackTarget
from defenses.plugins import classes_in
from reports.records.report import CopyRecord, Estimate


class Joined(abc.ABC):
    """A claim joined with the truth about who was a member."""

    @abc.abstractmethod
    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the measures of the claim over independent units.

        Args:
            level: Confidence of each interval, in (0, 1).
            wanted: Names of measures beyond the usual ones, such as "tpr_at_fpr_0.05".
        """

    @property
    def ranking(self) -> Ranking | None:
        """How the claim orders candidates by how likely they were members; None where it does not."""
        return None

    @property
    def remarks(self) -> list[str]:
        """What a report says of it beside the measures, one sentence each."""
        return []

    @property
    def copies(self) -> CopyRecord | None:
        """How reconstructions compare with training records; None of other claims."""
        return None

    def doubt(self, measure: str, maximum: float) -> str | None:
        """Return why a figure within a limit would not settle it, one sentence, or None if it would."""
        return None

    def curve(self, *, level: float) -> list[tuple[int, Estimate]]:
        """Return (queries, fidelity) of the copies of a model; empty for other claims."""
        return []


class ClaimKind(abc.ABC):
    """A kind of claim.

    Class attributes:
        claims: The type of claim, of `attacks.protocol`.
        name: As measures name it in `reports.measures`.
        title: What a finding about a leak of this kind is called.
        words: What an audit measures by it, inside a sentence.
        kept: Whether a claim can be kept for a later run: arrays, numbers and texts can, networks cannot.
    """

    claims: ClassVar[type[Any]]
    name: ClassVar[str]
    title: ClassVar[str]
    words: ClassVar[str]
    kept: ClassVar[bool] = True

    @abc.abstractmethod
    def join(
        self, claim: Any, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> Joined:
        """Join a claim with the truth.

        Args:
            claim: Of the type `claims`.
            question: What was attacked, with the truth.
            attack: Which attack claims it.
            rng: The only source of randomness.
            device: Where models answer.

        Raises:
            ClaimError: If the claim is not about these candidates.
            ValueError: If its values do not fit.
        """


class ClaimError(Exception):
    """A claim is not about what was asked; the message says how."""


@functools.cache
def claim_kinds() -> dict[type[Claim], ClaimKind]:
    """Return every kind by the type of its claims: each file of this folder that defines one."""
    found: list[type[ClaimKind]] = classes_in("auditor.evidence", ClaimKind)
    return {kind.claims: kind() for kind in found}


def kind_of(claims: type[Claim]) -> ClaimKind:
    """Return the kind of a type of claim; raises ClaimError if no file of this folder defines it."""
    if claims not in claim_kinds():
        raise ClaimError(f"it returned {claims.__name__}, which is no kind of claim")
    return claim_kinds()[claims]
