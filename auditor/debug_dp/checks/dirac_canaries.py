"""Single steps with canaries of one coordinate each, in or out by a coin: how well the noise hides them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import linear, one_hot
from auditor.debug_dp.implementation import StepSettings
from auditor.debug_dp.p_values import least_error
from auditor.statistics.intervals import binomial_upper


@dataclass(frozen=True)
class DiracCanaries(Check):
    """Tell from each noisy update which one-hot records were in the lot, and bound the noise from the errors.

    User code takes no gradients from outside, so the canaries are records: on a linear model at zero a one-hot record
    has a gradient in a column of its own. It is projected on the column's direction without noise, in units of the
    largest contribution, and called "in" above one half, a threshold fixed in advance. Error rates a and b of a
    Gaussian mechanism give mu = Phi^-1(1 - a) + Phi^-1(1 - b), which a sound step keeps at or below
    1 / noise_multiplier.

    Args:
        canaries: In one step, at least 2.
        steps: Independent steps, at least 1.

    Source: Nasr et al. (2023), Tight Auditing of Differentially Private Machine Learning, section 4; records in place
    of inserted gradients, so what mixes or rescales records is not bypassed but what looks at one-hot records alone is.
    """

    canaries: int = 48
    steps: int = 100

    name: ClassVar[str] = "dirac_canaries"
    title: ClassVar[str] = "One-coordinate canaries in single steps"
    invariant: ClassVar[str] = "the noise of a step hides one clipped record as well as is priced"
    order: ClassVar[int] = 100

    def run(self, bench: Harness) -> Answer:
        """Count errors over all canaries and steps, and compare the limit on mu with the priced one."""
        x, y = one_hot(self.canaries)
        model = linear(self.canaries)
        dials = StepSettings(max_grad_norm=3.0, noise_multiplier=0.7, expected_batch_size=self.canaries)
        column = bench.moved(model, x, y, dials.quiet()).parameters["0.weight"]
        lengths = column.norm(dim=0)
        if not lengths.all():
            return Answer(None, "some one-hot records do not move the model, so there is nothing to project on")
        direction = column / lengths
        included = bench.rng.random((self.steps, self.canaries)) < 0.5
        called = np.zeros_like(included)
        for step, coins in enumerate(included):
            lot = torch.from_numpy(np.flatnonzero(coins))
            moved = bench.moved(model, x[lot], y[lot], dials).parameters["0.weight"]
            called[step] = ((moved * direction).sum(dim=0) / bench.contribution(dials) > 0.5).numpy()
        positives, negatives = int(included.sum()), int((~included).sum())
        false_positives, false_negatives = int((called & ~included).sum()), int((~called & included).sum())

        def mu(error: float, wrong_in: int = false_positives, wrong_out: int = false_negatives) -> float:
            fpr = float(binomial_upper(wrong_in, negatives, error=error / 2))
            fnr = float(binomial_upper(wrong_out, positives, error=error / 2))
            return max(0.0, float(-stats.norm.ppf(fpr) - stats.norm.ppf(fnr)))

        excess = mu(bench.error) * dials.noise_multiplier
        return Answer(
            p_value=least_error(lambda error: mu(error) * dials.noise_multiplier > 1),
            found=f"{false_positives} of {negatives} canaries that were out and {false_negatives} of {positives} that "
            f"were in are called wrongly, so a record moves a step at least {excess:.3g} times as far, against its "
            "noise, as is priced",
            bound=bench.claim.implied(
                excess,
                confidence=bench.confidence,
                method=f"one-coordinate canaries over {self.steps} steps, Gaussian trade-off",
                ceiling=mu(bench.error, 0, 0) * dials.noise_multiplier,
                assumption="The noise is Gaussian.",
            ),
        )
