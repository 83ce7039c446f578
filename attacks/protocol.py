"""The protocol of an attack, and the claims that an attacker may make."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.threat_model import ThreatModel, View
from defenses.progress import OnProgress, silent
from defenses.records import FloatArray


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


Claim = MembershipScores | Reconstructions


class Attack(abc.ABC):
    """One attack. Subclasses are frozen dataclasses whose fields are the hyperparameters.

    Class attributes:
        name: Key in plans and reports.
        title: What reports call it.
        paper: Where it comes from.
        requires: What it must be given.
        similarity: Reconstructions: the measure of `attacks.similarity` by which records are compared; None takes the
            usual one for the kind of record.
        usual: Whether a plan that lists no attacks runs it; not what costs much or is a variant of another, since every
            attack that runs makes the intervals of all a little wider.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    requires: ClassVar[ThreatModel]
    similarity: ClassVar[str | None] = None
    usual: ClassVar[bool] = True

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
