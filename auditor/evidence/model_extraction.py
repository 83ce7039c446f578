"""Copies of a target joined with the target: on how many records they agree, and how many queries that took."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import nn

from attacks.protocol import Attack, ExtractedModel
from attacks.target import Classifier, Target, logits_of
from auditor.evidence.claim_kind import ClaimKind, Joined
from auditor.statistics.intervals import Float64Array
from auditor.statistics.paired_differences import paired_estimate, share_estimate
from auditor.statistics.units import Units
from auditor.subject import AttackTarget
from defenses.records import IntArray
from reports.measures import EXTRACTION
from reports.records.report import Estimate

FIDELITY, ADVANTAGE, WITHOUT = "fidelity", "fidelity_advantage", "fidelity_without_target"


@dataclass(frozen=True)
class Agreement(Joined):
    """On which candidates copies agree with the target.

    Attributes:
        queries: Spent on each copy.
        agree: (copies, u) 0 or 1, or the share of a unit's records.
        without_target: (u,) the same for what the attacker has without one query.
        unit: What a unit is called.
    """

    queries: tuple[int, ...]
    agree: Float64Array
    without_target: Float64Array
    unit: str = "record"

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the fidelity of the last copy, and how much of it is owed to the target's answers."""
        last, without = self.agree[-1], self.without_target
        return {
            FIDELITY: share_estimate(last, level=level, unit=self.unit),
            ADVANTAGE: paired_estimate(last, without, level=level, unit=self.unit),
            WITHOUT: share_estimate(without, level=level, unit=self.unit),
        }

    def curve(self, *, level: float) -> list[tuple[int, Estimate]]:
        """Return fidelity against queries; the intervals hold together."""
        each = 1 - (1 - level) / len(self.queries)
        return [
            (spent, share_estimate(agree, level=each, unit=self.unit))
            for spent, agree in zip(self.queries, self.agree, strict=True)
        ]


def join_copies(claim: ExtractedModel, target: Target, *, device: str) -> Agreement:
    """Compare the labels that copies and target give to the candidates, which the attacker never saw.

    Args:
        claim: The copies.
        target: What was copied.
        device: Where models answer.

    Raises:
        ValueError: If a copy's answers have another number of classes, or are not finite.
    """
    x = target.candidates.x
    said = _labels(target.model, target, device)
    fixed = np.full(len(x), np.bincount(said).argmax())
    without = fixed if claim.without_target is None else _labels(claim.without_target, target, device)
    queries = tuple(copy.queries for copy in claim.copies)
    agree = np.stack([_labels(copy.model, target, device) == said for copy in claim.copies]).astype(np.float64)
    beside = (without == said).astype(np.float64)
    units = Units.of(target.candidates.units)
    return Agreement(queries, np.stack([units.mean(row) for row in agree]), units.mean(beside), units.name)


class ExtractionKind(ClaimKind):
    """Copies of the target; they are networks, so no later run finds them again."""

    claims = ExtractedModel
    name = EXTRACTION
    title = "Model extraction"
    words = "model extraction"
    kept = False

    def join(
        self, claim: ExtractedModel, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> Agreement:
        """Compare the answers of copies and target; see `join_copies`."""
        return join_copies(claim, question.target, device=device)


def _labels(model: nn.Module | Classifier | None, target: Target, device: str) -> IntArray:
    logits = logits_of(model, target.candidates.x, device=device)
    if logits.shape[1] != target.candidates.classes or not np.isfinite(logits).all():
        raise ValueError(f"a copy gave logits of shape {logits.shape}, or some that are not finite")
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)
