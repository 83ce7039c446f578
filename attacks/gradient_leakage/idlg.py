"""Improved deep leakage from gradients: labels read off the last layer first, then records searched."""

from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.gradient_leakage.gradient_matching import GradientMatching
from attacks.gradient_leakage.label_recovery import read_labels
from attacks.gradient_leakage.matched_transcript import check_settings, claimed, match, public_model
from attacks.protocol import Attack, Reconstructions
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class IDLG(Attack):
    """Read the labels off what each participant sent, then search for the records; all participants at once.

    Attributes:
        evaluations: Most evaluations of a restart, at least 1.
        restarts: Beginnings; the best end counts, at least 1.
        tolerance: Share of the first squared distance at which a search is done, at least 0.
        smoothness: Weight of the total variation of images against the squared length of what was sent, at least 0.
        double: Whether to search in float64, which converges where float32 does not.

    Source: Zhao, Mopuri and Bilen 2020, "iDLG: Improved Deep Leakage from Gradients". Deviations: labels of batches too
    (`recover_labels`), and those of `GradientMatching`.
    """

    evaluations: int = 300
    restarts: int = 1
    tolerance: float = 1e-8
    smoothness: float = 0.0
    double: bool = True

    name = "idlg"
    title = "Deep leakage from gradients, labels first"
    paper = "Zhao, Mopuri and Bilen 2020, iDLG: Improved Deep Leakage from Gradients"
    requires = ThreatModel(frozenset({Capability.WEIGHTS, Capability.GRADIENTS}), candidates=False)
    claims = Reconstructions
    example = {"evaluations": 20}

    def __post_init__(self) -> None:
        check_settings(
            evaluations=self.evaluations,
            restarts=self.restarts,
            tolerance=self.tolerance,
            smoothness=self.smoothness,
        )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return B records for each of V participants, (V * B, *shape), participant by participant.

        For who sent a gradient of zero they are the middle of the public range.

        Raises:
            NotApplicableError: If every participant sent one, or labels cannot be read off the last layer.
        """
        matching = GradientMatching(
            evaluations=self.evaluations,
            restarts=self.restarts,
            tolerance=self.tolerance,
            smoothness=self.smoothness,
        )
        model = public_model(view, double=self.double)
        labels, notes = read_labels(view, model)
        known = labels.guessed(view.facts.classes, rng)
        leaked = match(view, model, matching, labels=known, rng=rng, on_progress=on_progress)
        return claimed(view, leaked, tolerance=self.tolerance, notes=notes)
