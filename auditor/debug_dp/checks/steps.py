"""Whether a training makes as many steps as are priced."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.counting import columns, one_visit, visits
from auditor.debug_dp.implementation import StepSettings

RECORDS, BATCH, STEPS = 20, 8, 10


@dataclass(frozen=True)
class Steps(Check):
    """Count all visits of all records in runs of a given number of steps.

    Runs of n records, T steps and sampling probability q visit Binomial(n T q) records in all. The batch size does not
    divide n, and the batches of an epoch do not divide T, where whole epochs run over.

    Args:
        runs: Runs that are counted, at least 1.
    """

    runs: int = 12

    name: ClassVar[str] = "steps"
    title: ClassVar[str] = "Number of steps"
    invariant: ClassVar[str] = (
        "a training makes the number of steps that is priced, at the sampling rate that is priced"
    )
    order: ClassVar[int] = 80
    needs_training: ClassVar[bool] = True

    def run(self, bench: Harness) -> Answer:
        """Test whether there are more visits than priced; fewer cost nothing."""
        dials = StepSettings(
            expected_batch_size=BATCH, sampling_probability=BATCH / RECORDS, steps=STEPS, learning_rate=1e-5
        )
        moved = np.stack([columns(bench, RECORDS, dials) for _ in range(self.runs)])
        counts = visits(moved, one_visit(bench, RECORDS, dials))
        if np.isnan(counts).any():
            return Answer(None, "records do not move the model by whole contributions, so visits cannot be counted")
        trials = self.runs * RECORDS * STEPS
        total = int(counts.sum())
        expected = trials * dials.sampling_probability
        return Answer(
            float(stats.binom.sf(total - 1, trials, dials.sampling_probability)),
            f"records are visited {total / expected:.3g} times as often as {STEPS} steps at sampling probability "
            f"{dials.sampling_probability:g} do",
        )
