"""The protocol of an attack, and the claims that an attacker may make."""

import abc
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import nn

from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class MembershipScores:
    """One score per candidate; higher means more likely a member.

    Attributes:
        scores: (m,) float64, never NaN.
        notes: Remarks for the report, one sentence each: what was chosen, what could not be estimated.

    Raises:
        ValueError: If a score is NaN.
    """

    scores: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if np.isnan(self.scores).any():
            raise ValueError(f"{int(np.isnan(self.scores).sum())} of {len(self.scores)} scores are NaN")


@dataclass(frozen=True)
class Reconstructions:
    """Records that the attacker believes the target was trained on; any number, in no order.

    Attributes:
        x: (r, *shape) float32, finite, r at least 1.
        notes: Remarks for the report, one sentence each.

    Raises:
        ValueError: If there is none, or one is not finite.
    """

    x: FloatArray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.x):
            raise ValueError("there are no reconstructions")
        broken = int((~np.isfinite(self.x.reshape(len(self.x), -1)).all(axis=1)).sum())
        if broken:
            raise ValueError(f"{broken} of {len(self.x)} reconstructions are not finite")


@dataclass(frozen=True)
class Guesses:
    """What the attacker believes of a value that each candidate keeps hidden: a column of a table, or the label.

    Attributes:
        values: (m,) int64, the code of the guessed category or class.
        without_target: (m,) int64, what the same attacker guesses who never saw the target; what is right in both says
            nothing about the target.
        hidden: Name of the column, or `attacks.threat_model.LABEL`.
        notes: Remarks for the report, one sentence each.

    Raises:
        ValueError: If there is not one guess of each kind for every candidate.
    """

    values: IntArray
    without_target: IntArray
    hidden: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.shape != self.without_target.shape or self.values.ndim != 1:
            raise ValueError(
                f"guesses have shape {self.values.shape}, those without the target {self.without_target.shape}; give "
                "(m,) each"
            )


@dataclass(frozen=True)
class Stolen:
    """A copy of the target as it stood after some queries.

    Attributes:
        queries: Records that the target had answered by then.
        model: Gives logits (n, C) for records (n, *shape), in evaluation mode.
    """

    queries: int
    model: nn.Module


@dataclass(frozen=True)
class ExtractedModel:
    """Copies of the target that were made from its answers.

    Attributes:
        copies: In ascending order of queries; the last one is the claim.
        without_target: What the same attacker trains on their own labelled records without one query, or None where
            they have none and can only name one class for all.
        notes: Remarks for the report, one sentence each.

    Raises:
        ValueError: If there is no copy, or queries do not rise.
    """

    copies: tuple[Stolen, ...]
    without_target: nn.Module | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        spent = [copy.queries for copy in self.copies]
        if not spent or any(left >= right for left, right in itertools.pairwise(spent)):
            raise ValueError(f"copies were made after {spent} queries; give at least one, in ascending order")


@dataclass(frozen=True)
class Predicates:
    """Conditions of which the attacker says that exactly one person of the training data meets each.

    Attributes:
        matches: (p, m) bool, which of the candidates meet each condition.
        notes: Remarks for the report, one sentence each.
    """

    matches: BoolArray
    notes: tuple[str, ...] = ()


Claim = MembershipScores | Reconstructions | Guesses | ExtractedModel | Predicates


class Attack(abc.ABC):
    """One attack. Subclasses are frozen dataclasses whose fields are the hyperparameters.

    Class attributes:
        name: Key in plans and reports.
        title: What reports call it.
        paper: Where it comes from.
        requires: What it must be given; an attack whose fields decide it overrides this by a property.
        claims: What kind of claim it makes, which decides by which measures it is judged.
        similarity: Reconstructions: the measure of `attacks.similarity` by which records are compared; None, or one
            that does not fit the kind of record, takes the usual one.
        usual: Whether a plan that lists no attacks runs it. Every attack that runs widens the intervals of all others,
            so the default is False: a new attack changes no plan that does not name it.
        example: Settings, beside the defaults, under which it runs within a second on the contract tests' targets.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    requires: ClassVar[ThreatModel]
    claims: ClassVar[type[Claim]] = MembershipScores
    similarity: ClassVar[str | None] = None
    usual: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]] = {}

    @abc.abstractmethod
    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Claim:
        """Attack what the view discloses and say what was found.

        Args:
            view: All that the attacker sees.
            rng: The only source of randomness.
            on_progress: Called while it works.

        Returns:
            A claim about every candidate of the view.
        """
