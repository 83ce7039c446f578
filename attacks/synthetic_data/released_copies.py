"""Released copies: what was released in place of real records, taken for them as it is."""

from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent


@dataclass(frozen=True)
class ReleasedCopies(Attack):
    """Hand on released records: are there copies of training records among them?

    A table that a scheme made up, or the samples of a generator, must not be nearer to the records that it was made
    from than to others of the same source.

    Attributes:
        most: Most records that are handed on, drawn at random, at least 1. Few copies among many need all of them.

    Source: Choi et al. 2017, "Generating Multi-label Discrete Patient Records using Generative Adversarial Networks",
    presence disclosure. Deviations: nearness is judged against that of a holdout, not against a fixed distance.
    """

    most: int = 2000

    name = "released_copies"
    title = "Copies among released records"
    paper = "Choi et al. 2017, Generating Multi-label Discrete Patient Records using GANs"
    requires = ThreatModel(frozenset({Capability.SYNTHETIC}), candidates=False)
    claims = Reconstructions

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most is {self.most}; at least 1 released record is needed")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return released records, all or as many as allowed, and say so where some are left out."""
        x = view.synthetic.x
        if len(x) <= self.most:
            return Reconstructions(x)
        drawn = x[rng.choice(len(x), self.most, replace=False)]
        return Reconstructions(drawn, (f"{self.most} of {len(x)} released records were drawn and compared.",))
