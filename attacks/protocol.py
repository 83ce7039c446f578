"""The protocol of an attack, and the claims that an attacker may make."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.threat_model import ThreatModel, View
from defenses.progress import OnProgress, silent


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


Claim = MembershipScores


class Attack(abc.ABC):
    """One attack. Subclasses are frozen dataclasses whose fields are the hyperparameters.

    Class attributes:
        name: Key in plans and reports.
        title: What reports call it.
        paper: Where it comes from.
        requires: What it must be given.
        usual: Whether a plan that lists no attacks runs it; not what costs much or is a variant of another, since every
            attack that runs makes the intervals of all a little wider.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    requires: ClassVar[ThreatModel]
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
