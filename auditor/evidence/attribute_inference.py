"""Guesses of hidden values joined with the truth: what the target gives away, beyond what is guessed without it."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from attacks.protocol import Attack, Guesses
from attacks.target import Target
from attacks.threat_model import LABEL
from auditor.evidence.claim_kind import ClaimKind, Joined
from auditor.statistics.intervals import Float64Array
from auditor.statistics.paired_differences import gap, paired_estimate, share_estimate
from auditor.statistics.units import Units
from auditor.subject import AttackTarget
from defenses.records import BoolArray, IntArray, Records, Table
from reports.measures import ATTRIBUTES
from reports.records.report import Estimate

ADVANTAGE, GAP = "guess_advantage", "guess_gap"
ACCURACY, WITHOUT = "guess_accuracy", "guess_accuracy_without_target"


@dataclass(frozen=True)
class Guessed(Joined):
    """How many guesses are right, by independent unit.

    Attributes:
        right: (u,) share of a unit's guesses that are right; 0 or 1 where a unit is a record.
        without_target: (u,) the same for the guesses of who never saw the target.
        included: (u,) whether the unit was in training.
        unit: What a unit is called.
    """

    right: Float64Array
    without_target: Float64Array
    included: BoolArray
    unit: str

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return accuracy and advantage on training units, and how much larger that is than on others."""
        inside, error = self.included, 1 - level
        found = {
            ADVANTAGE: paired_estimate(self.right[inside], self.without_target[inside], level=level, unit=self.unit),
            ACCURACY: share_estimate(self.right[inside], level=level, unit=self.unit),
            WITHOUT: share_estimate(self.without_target[inside], level=level, unit=self.unit),
        }
        if (~inside).any():
            halves = [
                paired_estimate(self.right[side], self.without_target[side], level=1 - error / 2, unit=self.unit)
                for side in (inside, ~inside)
            ]
            found[GAP] = gap(*halves, level=level)
        return found


def join_guesses(claim: Guesses, target: Target, included: BoolArray, victims: IntArray | None) -> Guessed:
    """Compare guesses with what was hidden.

    Args:
        claim: Guesses about every candidate, or about the victims of a transcript in its order.
        target: Holds the candidates, with nothing hidden.
        included: (m,) who was in.
        victims: (V, B) which candidates are behind a transcript, or None.

    Raises:
        ValueError: If there is not one guess for each of them, or no such value was hidden.
    """
    about = target.candidates if victims is None else target.candidates.take(victims.reshape(-1))
    inside = included if victims is None else included[victims.reshape(-1)]
    if len(claim.values) != len(about):
        raise ValueError(f"it returned {len(claim.values)} guesses about {len(about)} records")
    truth = hidden_values(about, claim.hidden)
    groups, unit = about.units, Units.of(about.units).name
    if victims is not None and victims.shape[1] > 1:
        size = victims.shape[1]
        groups, unit = np.repeat(np.arange(len(about) // size), size), "participant"
        truth = np.sort(truth.reshape(-1, size), axis=1).reshape(-1)  # a batch has no order: labels are compared sorted
    right, without = ((guess == truth).astype(np.float64) for guess in (claim.values, claim.without_target))
    units = Units.of(groups)
    return Guessed(units.mean(right), units.mean(without), units.any(inside), unit)


class AttributeKind(ClaimKind):
    """Hidden values of records."""

    claims = Guesses
    name = ATTRIBUTES
    title = "Hidden values"
    words = "inference of hidden values"

    def join(
        self, claim: Guesses, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> Guessed:
        """Compare guesses with what was hidden; see `join_guesses`."""
        return join_guesses(claim, question.target, question.included, question.victims)


def hidden_values(records: Records, hidden: str) -> IntArray:
    """Return the code of the hidden category, or the label, of each record (n,).

    Raises:
        ValueError: If it is neither the label nor a categorical column.
    """
    if hidden == LABEL:
        return records.y
    columns = {column.name: column for column in records.kind.columns} if isinstance(records.kind, Table) else {}
    if hidden not in columns or not columns[hidden].categories:
        raise ValueError(f"{hidden!r} is no categorical column of {records.name}")
    start = columns[hidden].start
    return np.asarray(records.x[:, start : start + columns[hidden].width].argmax(axis=1), dtype=np.int64)
