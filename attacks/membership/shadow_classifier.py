"""Shadow-model attack classifier: learn from shadow models what a member's output looks like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from attacks.membership.signals import log_probability, logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import Capability, ThreatModel, View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]


def output_features(logits: npt.NDArray[Any], y: npt.NDArray[Any], *, top: int = 3) -> Float64Array:
    """Return what the attack classifier sees of each record.

    Args:
        logits: (n, C).
        y: (n,) true labels.
        top: How many of the largest log-probabilities to include.

    Returns:
        (n, min(top, C) + 4) float64: the largest log-probabilities in order, log-probability and logit confidence of
        the true class, entropy, and the true class itself.
    """
    logs = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    largest = -np.sort(-logs, axis=1)[:, :top]
    entropy = -(np.exp(logs) * logs).sum(axis=1)
    return np.column_stack([largest, log_probability(logits, y), logit_confidence(logits, y), entropy, y])


@dataclass(frozen=True)
class ShadowClassifier(Attack):
    """Train a classifier on the outputs of shadow models, whose members are known, and apply it to the target.

    Attributes:
        shadows: Shadow models to train, at least 1.
        rows: Most shadow outputs to learn from.

    Source: Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models". Deviation: one gradient-
    boosted classifier (scikit-learn) with the class as a categorical feature instead of one network per class.
    """

    shadows: int = 16
    rows: int = 60_000

    name = "shadow_classifier"
    title = "Shadow classifier"
    paper = "Shokri et al. 2017, Membership Inference Attacks Against Machine Learning Models"
    requires = ThreatModel(frozenset({Capability.LOGITS}), recipe=True)

    def __post_init__(self) -> None:
        if self.shadows < 1 or self.rows < 100:
            raise ValueError(f"shadows is {self.shadows}, rows {self.rows}; at least 1 and 100 are needed")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the classifier's log-odds of membership for every candidate."""
        from sklearn.ensemble import HistGradientBoostingClassifier

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
        few_classes = view.candidates.classes <= 200  # the learner bins a categorical feature into at most 255 values
        model = HistGradientBoostingClassifier(
            max_iter=200,
            early_stopping=True,
            categorical_features=[features.shape[1] - 1] if few_classes else None,
            random_state=int(rng.integers(2**31)),
        )
        model.fit(features, included[shadow, record])
        scores = model.decision_function(target)
        return MembershipScores(np.asarray(scores, dtype=np.float64))
