"""Loss threshold: members are the records that the model fits best."""

from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.membership.signals import log_probability
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class LossThreshold(Attack):
    """Score each record by minus its loss; needs the target alone.

    The simplest attack there is, and the baseline that every other one is measured against. Thresholds on the
    probability of the true class, or on its logit, are the same attack: all three rank records alike.

    Source: Yeom et al. 2018, "Privacy Risk in Machine Learning", Adversary 1.
    """

    name = "loss_threshold"
    title = "Loss threshold"
    paper = "Yeom et al. 2018, Privacy Risk in Machine Learning"
    requires = ThreatModel(frozenset({Capability.LOGITS}))
    usual = True

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return minus the cross-entropy loss of every candidate."""
        return MembershipScores(log_probability(view.logits(view.candidates.x), view.candidates.y))
