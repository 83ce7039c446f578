"""Membership scores: each candidate's score beside whether it was a member."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from attacks.protocol import Attack, MembershipScores
from auditor.evidence.claim_kind import ClaimError, ClaimKind, Joined
from auditor.evidence.ranking import Ranking
from auditor.subject import AttackTarget
from reports.measures import MEMBERSHIP
from reports.records.report import Estimate


@dataclass(frozen=True)
class ScoredCandidates(Joined):
    """Scores beside the truth.

    Attributes:
        ranked: Scores, truth and units.
    """

    ranked: Ranking

    @property
    def ranking(self) -> Ranking:
        """The scores themselves."""
        return self.ranked

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the measures of the ranking; arguments as in `Joined.measures`."""
        return self.ranked.measures(level=level, wanted=wanted)


class MembershipKind(ClaimKind):
    """Who was a member."""

    claims = MembershipScores
    name = MEMBERSHIP
    title = "Membership leak"
    words = "membership inference"

    def join(
        self, claim: MembershipScores, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> ScoredCandidates:
        """Put scores beside the truth; raises ClaimError unless there is one for each candidate."""
        if len(claim.scores) != len(question.included):
            raise ClaimError(f"it returned {len(claim.scores)} scores for {len(question.included)} candidates")
        return ScoredCandidates(Ranking(claim.scores, question.included, question.target.candidates.units))
