"""Inverting gradients: records by the direction of what was sent, smooth and inside their range."""

from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.gradient_leakage.batched_adam import SignedAdam
from attacks.gradient_leakage.gradient_matching import GradientMatching
from attacks.gradient_leakage.label_recovery import read_labels
from attacks.gradient_leakage.matched_transcript import check_settings, claimed, match, public_model
from attacks.protocol import Attack, Reconstructions
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class InvertingGradients(Attack):
    """Read off labels, then turn each guess until its gradient points where the one that was sent points.

    Only directions are compared, images are held smooth and every feature inside its public range, and steps follow the
    signs of slopes: so networks with ReLUs can be attacked, whose slopes say little. All participants at once.

    Attributes:
        evaluations: Of a restart, all taken, at least 1; steps get shorter towards the last.
        restarts: Beginnings; the best end counts, at least 1.
        tolerance: Share of the first distance below which a search counts as converged, at least 0.
        smoothness: Weight of the total variation of images against one less the cosine, at least 0.
        step_size: Of first steps, as a share of the public range, above 0.
        double: Whether to search in float64.

    Source: Geiping, Bauermeister, Dröge and Moeller 2020, "Inverting Gradients: How easy is it to break privacy in
    federated learning?". Deviations: every participant by itself, in one batch; 2 times 600 evaluations instead of
    4,800, and longer first steps, which on small ReLU networks find more than short ones.
    """

    evaluations: int = 600
    restarts: int = 2
    tolerance: float = 1e-2
    smoothness: float = 1e-2
    step_size: float = 0.3
    double: bool = True

    name = "inverting_gradients"
    title = "Inverting gradients"
    paper = "Geiping et al. 2020, Inverting Gradients: How easy is it to break privacy in federated learning?"
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
        if not 0 < self.step_size <= 1:
            raise ValueError(f"step_size is {self.step_size}; it must lie above 0, and at most 1")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return B records for each of V participants, (V * B, *shape), participant by participant.

        For who sent a gradient of zero they are the middle of the public range.

        Raises:
            NotApplicableError: If every participant sent one, or labels cannot be read off the last layer.
        """
        matching = GradientMatching(
            cosine=True,
            evaluations=self.evaluations,
            restarts=self.restarts,
            tolerance=self.tolerance,
            smoothness=self.smoothness,
            centre=0.5,
            spread=0.3,
            search=SignedAdam(self.step_size),
        )
        model = public_model(view, double=self.double)
        labels, notes = read_labels(view, model)
        known = labels.guessed(view.facts.classes, rng)
        leaked = match(view, model, matching, labels=known, rng=rng, on_progress=on_progress)
        return claimed(view, leaked, tolerance=self.tolerance, notes=notes)
