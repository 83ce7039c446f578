"""Reference attack: how much better does the target fit a record than models that did not see it?"""

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.membership.signals import log_probability, logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]


class Signal(enum.StrEnum):
    """What is compared between the target and the reference models."""

    CONFIDENCE = "confidence"  # logit of the true class's probability
    LOSS = "loss"


def reference_scores(
    target: npt.NDArray[Any], references: npt.NDArray[Any], included: npt.NDArray[np.bool_]
) -> Float64Array:
    """Score candidates by the target's signal less its mean over the models that did not see the record.

    What a record's difficulty adds to the signal of every model alike cancels. A record that every reference saw has
    no such mean; the average of the others' means stands in for it.

    Args:
        target: (n,) signal of each candidate under the target; higher where the model fits it better.
        references: (k, n) the same under each reference model.
        included: (k, n) which reference trained on which candidate.

    Returns:
        (n,) float64, higher = member.

    Raises:
        ValueError: If shapes differ, a signal is not finite, or every reference saw every record.

    Examples:
        >>> seen = np.array([[True, False], [False, False]])
        >>> reference_scores(np.array([3.0, 3.0]), np.array([[9.0, 1.0], [2.0, 3.0]]), seen)
        array([1., 1.])

    Source: Watson et al. 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks", equation
    2; Sablayrolles et al. 2019, "White-box vs Black-box: Bayes Optimal Strategies for Membership Inference", the
    threshold per record. Deviation: models that saw the record are left out by mask, so the attack can share its models
    with LiRA. On the logit confidence its ranking is that of offline LiRA with fixed variance.
    """
    values, wide = np.asarray(target, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if wide.ndim != 2 or wide.shape != included.shape or values.shape != wide.shape[1:]:
        raise ValueError(
            f"target is {values.shape}, references {wide.shape}, included {included.shape}; want (n,), (k, n), (k, n)"
        )
    if not (np.isfinite(values).all() and np.isfinite(wide).all()):
        raise ValueError("a signal is not finite; take it from logits with the functions of attacks.membership.signals")
    counts = (~included).sum(axis=0)
    if not counts.any():
        raise ValueError("every reference saw every record, so there is nothing to compare with; train more of them")
    mean = np.where(included, 0.0, wide).sum(axis=0) / np.maximum(counts, 1)
    return np.asarray(values - np.where(counts > 0, mean, mean[counts > 0].mean()))


@dataclass(frozen=True)
class Reference(Attack):
    """Calibrate each record's confidence by its mean under a few models that did not see it.

    Attributes:
        shadows: Reference models to train, at least 1; each serves the records that it did not see.
        signal: "confidence" (the logit; the better one wherever we measured) or "loss".
    """

    shadows: int = 16
    signal: Signal = Signal.CONFIDENCE

    name = "reference"
    title = "Reference models"
    paper = "Watson et al. 2022, On the Importance of Difficulty Calibration in Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.LOGITS}), recipe=True)
    example = {"shadows": 8}

    def __post_init__(self) -> None:
        if self.shadows < 1:
            raise ValueError(f"shadows is {self.shadows}; the reference attack needs at least 1 model")
        object.__setattr__(self, "signal", Signal(self.signal))

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the calibrated signal of every candidate."""
        y = view.candidates.y
        signal = logit_confidence if self.signal is Signal.CONFIDENCE else log_probability
        said = view.shadows.each(self.shadows, on_progress=on_progress)
        references = np.stack([signal(one.logits, y) for one in said])
        included = view.shadows.included(self.shadows)
        scores = reference_scores(signal(view.logits(view.candidates.x), y), references, included)
        lonely = int(included.all(axis=0).sum())
        notes = (f"{lonely} records were in all reference models; an average stands in for them.",) if lonely else ()
        return MembershipScores(scores, notes)
