"""Whether a lot without records gets noise like any other."""

from dataclasses import dataclass
from typing import ClassVar

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import natural, network
from auditor.debug_dp.implementation import StepSettings, UserCodeError
from defenses.errors import NotApplicableError


@dataclass(frozen=True)
class EmptyLot(Check):
    """Hand over a lot of no records, or train at a sampling probability that draws none.

    Poisson sampling draws an empty lot now and then. If nothing moves, everybody sees that nobody was in it.
    """

    name: ClassVar[str] = "empty_lot"
    title: ClassVar[str] = "Empty lots"
    invariant: ClassVar[str] = "a lot without records moves the model by noise like any other"
    order: ClassVar[int] = 50

    def run(self, bench: Harness) -> Answer:
        """Look whether every tensor moved; there is no chance in it."""
        model = network(64, rng=bench.rng)
        x, y = natural(4, 64, rng=bench.rng)
        dials = StepSettings(noise_multiplier=1.0, expected_batch_size=1)
        try:
            if bench.implementation.trains:
                moved = bench.moved(model, x, y, StepSettings(1.0, 1.0, 1, sampling_probability=1e-9))
            else:
                moved = bench.moved(model, x[:0], y[:0], dials)
        except UserCodeError as error:
            raise NotApplicableError(
                f"the code cannot take an empty lot, which Poisson sampling draws at times: {error}"
            ) from error
        still = [name for name, value in moved.parameters.items() if not value.any()]
        if still:
            return Answer(0.0, f"after an empty lot nothing has moved in {', '.join(still)}")
        return Answer(1.0, "an empty lot moves every tensor")
