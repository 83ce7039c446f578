"""Shadow-model attack classifier: learn from shadow models what a member's output looks like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from attacks.capabilities import Capability
from attacks.membership.signals import log_probability, logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]

SMALLEST_CLASS = 200
FEWEST = 20
"""Fewest outputs on members, and on others, that a classifier is learned from."""

MOST_CLASSES = 100


def output_features(logits: npt.NDArray[Any], y: npt.NDArray[Any], *, top: int = 3) -> Float64Array:
    """Return what the attack classifier sees of each record.

    Args:
        logits: (n, C).
        y: (n,) true labels.
        top: How many of the largest log-probabilities to include.

    Returns:
        (n, f) float64: log-probabilities of all classes (where there are at most `MOST_CLASSES`), the largest of them
        in order, log-probability and logit confidence of the true class, entropy, and the true class itself, which
        comes last.
    """
    logs = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    each = logs if logs.shape[1] <= MOST_CLASSES else logs[:, :0]
    largest = -np.sort(-logs, axis=1)[:, :top]
    entropy = -(np.exp(logs) * logs).sum(axis=1)
    return np.column_stack([each, largest, log_probability(logits, y), logit_confidence(logits, y), entropy, y])


@dataclass(frozen=True)
class ShadowClassifier(Attack):
    """Train a classifier on the outputs of shadow models, whose members are known, and apply it to the target.

    Attributes:
        shadows: Shadow models to train, at least 1.
        rows: Most shadow outputs to learn from.
        per_class: Whether each class gets a classifier of its own, as in the paper; a class with fewer than
            `SMALLEST_CLASS` outputs takes the pooled one.

    Source: Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models". Deviation: gradient-
    boosted trees (scikit-learn) in place of networks, and by default one for all classes, of which the class is a
    categorical feature. Log-probabilities of every class are worth their place: on Location-30 (8 targets, 16 shadows)
    AUC rises from 0.933 to 0.944 and the TPR at 1% FPR from 0.19 to 0.25.
    """

    shadows: int = 16
    rows: int = 60_000
    per_class: bool = False

    name = "shadow_classifier"
    title = "Shadow classifier"
    paper = "Shokri et al. 2017, Membership Inference Attacks Against Machine Learning Models"
    requires = ThreatModel(frozenset({Capability.LOGITS}), recipe=True)
    usual = True
    example = {"shadows": 8}

    def __post_init__(self) -> None:
        if self.shadows < 1 or self.rows < 100:
            raise ValueError(f"shadows is {self.shadows}, rows {self.rows}; at least 1 and 100 are needed")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the classifier's log-odds of membership for every candidate.

        Raises:
            NotApplicableError: If shadow models say too little of members, or of others.
        """
        said = view.shadows.each(self.shadows, on_progress=on_progress)
        included, y = view.shadows.included(self.shadows), view.candidates.y
        total = included.size
        chosen = rng.choice(total, size=min(self.rows, total), replace=False)
        shadow, record = np.unravel_index(chosen, included.shape)
        target = output_features(view.logits(view.candidates.x), y)
        features = np.empty((len(chosen), target.shape[1]))
        for k, one in enumerate(said):
            mine = shadow == k
            features[mine] = output_features(one.logits[record[mine]], y[record[mine]])
        members, of, classes = included[shadow, record], y[record], view.candidates.classes
        seed = int(rng.integers(2**31))
        if not _enough(members):
            raise NotApplicableError(
                f"learns from {int(members.sum())} outputs on members and {int((~members).sum())} on others, and needs "
                f"{FEWEST} of each: train more shadow models"
            )
        if not self.per_class:
            return MembershipScores(_log_odds(features, members, target, classes, seed))
        scores, pooled = np.empty(len(y)), 0
        for label in range(classes):
            theirs, asked = of == label, y == label
            if not asked.any():
                continue
            if theirs.sum() < SMALLEST_CLASS or not _enough(members[theirs]):
                theirs, pooled = np.ones_like(theirs), pooled + 1
            scores[asked] = _log_odds(features[theirs], members[theirs], target[asked], classes, seed)
        return MembershipScores(scores, (f"{pooled} small classes took the pooled classifier.",) if pooled else ())


def _enough(members: npt.NDArray[np.bool_]) -> bool:
    return bool(min(members.sum(), (~members).sum()) >= FEWEST)


def _log_odds(
    features: Float64Array, members: npt.NDArray[np.bool_], target: Float64Array, classes: int, seed: int
) -> Float64Array:
    """Learn to tell members by their features (r, f), the last of which is the class; apply it to (n, f)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    few_classes = classes <= 200  # the learner bins a categorical feature into at most 255 values
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=400,
        min_samples_leaf=50,
        early_stopping=True,
        categorical_features=[features.shape[1] - 1] if few_classes else None,
        random_state=seed,
    )
    model.fit(features, members)
    return np.asarray(model.decision_function(target), dtype=np.float64)
