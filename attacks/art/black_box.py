"""ART's black-box membership inference: a classifier of the target's answers, learned from shadow models."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from attacks.art.view_classifier import view_classifier
from attacks.capabilities import Capability
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent

LEARNERS = ("rf", "gb", "lr", "dt")
"""ART's scikit-learn learners whose randomness can be fixed: forest, boosting, logistic regression, tree."""


@dataclass(frozen=True)
class ArtBlackBox(Attack):
    """Train ART's attack model on the class probabilities of shadow models and apply it to the target.

    Attributes:
        shadows: Shadow models to train, at least 1.
        learner: One of `LEARNERS`, ART's `attack_model_type`.
        rows: Most shadow outputs to learn from, at least 100.

    Source: `MembershipInferenceBlackBox` of the Adversarial Robustness Toolbox with `input_type="prediction"`, after
    Shokri et al. 2017. Deviations: the shadow models are those of the audit, trained like the target, in place of ART's
    own, which train for 10 epochs whatever is asked for; and the learner's random state is fixed.
    """

    shadows: int = 16
    learner: str = "rf"
    rows: int = 60_000

    name = "art_black_box"
    title = "ART black-box"
    paper = "Nicolae et al. 2018, Adversarial Robustness Toolbox; Shokri et al. 2017, Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.PROBABILITIES}), recipe=True)
    example = {"shadows": 8}

    def __post_init__(self) -> None:
        if self.shadows < 1 or self.rows < 100:
            raise ValueError(f"shadows is {self.shadows}, rows {self.rows}; at least 1 and 100 are needed")
        if self.learner not in LEARNERS:
            raise ValueError(f"learner is {self.learner!r}; choose one of {', '.join(LEARNERS)}")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the probability of membership that ART's attack model gives each candidate.

        Raises:
            NotApplicableError: If no shadow output is of a member, or none of a non-member.
        """
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

        candidates = view.candidates
        probabilities, members, labels = self._shadow_outputs(view, rng, on_progress)
        if members.all() or not members.any():
            raise NotApplicableError("learns from outputs on members and on non-members: train more shadow models")
        estimator = view_classifier(view, view.probabilities)
        attack = MembershipInferenceBlackBox(estimator, input_type="prediction", attack_model_type=self.learner)
        attack.attack_model.set_params(random_state=int(rng.integers(2**31)))
        attack.fit(
            pred=probabilities[members],
            y=labels[members],
            test_pred=probabilities[~members],
            test_y=labels[~members],
        )
        inferred = attack.infer(candidates.x, candidates.y, probabilities=True)
        return MembershipScores(np.asarray(inferred, dtype=np.float64)[:, -1])

    def _shadow_outputs(
        self, view: View, rng: np.random.Generator, on_progress: OnProgress
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[Any]]:
        """Return class probabilities (r, C) of shadow models, whether each record was in (r,), and labels (r,)."""
        included, y = view.shadows.included(self.shadows), view.candidates.y
        chosen = rng.choice(included.size, size=min(self.rows, included.size), replace=False)
        shadow, record = np.unravel_index(chosen, included.shape)
        probabilities = np.empty((len(chosen), view.facts.classes), dtype=np.float32)
        for k, output in enumerate(view.shadows.each(self.shadows, on_progress=on_progress)):
            mine = shadow == k
            probabilities[mine] = softmax(output.logits[record[mine]], axis=1)
        return probabilities, included[shadow, record], y[record]
