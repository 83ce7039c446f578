"""ART's rule-based membership inference: a record that the target classifies correctly is called a member."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attacks.art.view_classifier import view_classifier
from attacks.capabilities import Capability
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class ArtRuleBased(Attack):
    """Score each record by whether the predicted class is right; needs labels alone.

    Source: `MembershipInferenceBlackBoxRuleBased` of the Adversarial Robustness Toolbox, which is the gap attack of
    Yeom et al. 2018. True labels are handed to ART as one-hot rows: from class numbers it infers the number of classes
    by counting those that occur, and is wrong where one does not.
    """

    name = "art_rule_based"
    title = "ART rule-based"
    paper = "Nicolae et al. 2018, Adversarial Robustness Toolbox; Yeom et al. 2018, Privacy Risk in Machine Learning"
    requires = ThreatModel(frozenset({Capability.LABELS}))

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return 1 for each candidate that the target classifies correctly, else 0."""
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased

        classes = np.eye(view.facts.classes, dtype=np.float32)

        def predict(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return np.asarray(classes[view.labels(x)])

        attack = MembershipInferenceBlackBoxRuleBased(view_classifier(view, predict))
        inferred = attack.infer(view.candidates.x, classes[view.candidates.y])
        return MembershipScores(np.asarray(inferred, dtype=np.float64).reshape(-1))
