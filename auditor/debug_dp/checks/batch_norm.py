"""Whether a network with BatchNorm is refused, or mixes the records of a lot."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from auditor.debug_dp.bench import TOLERANCE, Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import HUGE, joined, natural, network
from auditor.debug_dp.implementation import StepSettings, UserCodeError


@dataclass(frozen=True)
class BatchNorm(Check):
    """Train a network with BatchNorm on lots that differ in one outlier.

    With BatchNorm one record changes the gradients of all others, so clipping each says nothing about the sum, and the
    running statistics leave the training without noise. One-hot records on a linear model cannot show that.
    """

    name: ClassVar[str] = "batch_norm"
    title: ClassVar[str] = "BatchNorm"
    invariant: ClassVar[str] = "a network that mixes the records of a lot is refused"
    order: ClassVar[int] = 60

    def run(self, bench: Harness) -> Answer:
        """Measure the reach of the outlier and compare the running statistics; there is no chance in it."""
        model = network(64, rng=bench.rng, normalised=True)
        x, y = natural(7, 64, rng=bench.rng)
        dials = StepSettings(max_grad_norm=0.5)
        try:
            before, again = bench.moved(model, x, y, dials), bench.moved(model, x, y, dials)
            after = bench.moved(model, *joined(x, y, HUGE * x[0], 1), dials)
        except UserCodeError as error:
            return Answer(1.0, f"a network with BatchNorm is refused: {error}")
        allowed = bench.contribution(dials)
        reach = float((after.flat - before.flat).norm()) / allowed
        steady = float((again.flat - before.flat).norm()) <= TOLERANCE * allowed
        if steady and reach > 1 + TOLERANCE:
            return Answer(0.0, f"with BatchNorm in the network an outlier moves the update {reach:.3g} times as far as "
                          "one record may")  # fmt: skip
        for name, value in after.buffers.items():
            if not torch.allclose(value, before.buffers[name], rtol=1e-3, atol=1e-6):
                return Answer(0.0, f"the buffer {name!r} of BatchNorm depends on the records and gets no noise")
        return Answer(1.0, "a network with BatchNorm does not mix records")
