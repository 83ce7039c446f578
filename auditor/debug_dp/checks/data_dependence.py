"""Whether anything but the clipped sum looks at the records: preprocessing, thresholds, the time to stop."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from auditor.debug_dp.bench import TOLERANCE, Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import HUGE, joined, linear, natural
from auditor.debug_dp.implementation import StepSettings
from auditor.debug_dp.noise_width import widest_noise

RECORDS, INPUTS, STEPS = 16, 32, 5


@dataclass(frozen=True)
class DataDependence(Check):
    """Train for some steps, without noise and with all records in every lot, on data sets that differ in one record.

    At a tiny learning rate gradients stay as they are, so one record may move the end by one contribution per step.
    What is fitted on all records (means, ranges, thresholds), or decides when to stop, moves the others' contributions
    too. The record joins in front and at the end: what is held back for validation often comes from there.
    """

    name: ClassVar[str] = "data_dependence"
    title: ClassVar[str] = "Reach of one record in a training"
    invariant: ClassVar[str] = (
        "records enter a training through clipped gradients alone: no mean, threshold, count or time to stop depends "
        "on them"
    )
    order: ClassVar[int] = 90
    needs_training: ClassVar[bool] = True

    def run(self, bench: Harness) -> Answer:
        """Measure every case; any excess is a fault, there is no chance in it."""
        x, y = natural(RECORDS, INPUTS, rng=bench.rng)
        # Room for all records in one lot, since some divide the records by the batch size.
        dials = StepSettings(expected_batch_size=2 * RECORDS, steps=STEPS, learning_rate=1e-5)
        allowed = STEPS * bench.contribution(dials)
        before = bench.moved(linear(INPUTS), x, y, dials).flat
        if float((bench.moved(linear(INPUTS), x, y, dials).flat - before).norm()) > TOLERANCE * allowed:
            return Answer(None, "two trainings on the same records without noise and sampling end differently")
        typical = ((2 * y[:, None] - 1) * x).mean(dim=0)
        elsewhere = torch.from_numpy(bench.rng.standard_normal(INPUTS)).float()
        worst, what = 0.0, ""
        for kind, record, label in (
            ("an outlier", HUGE * elsewhere, 1),
            ("an outlier among its like", HUGE * typical, 1),
            ("an outlier with the wrong label", HUGE * typical, 0),
            ("a record of zeros", torch.zeros(INPUTS), 0),
        ):
            for first in (False, True):
                after = bench.moved(linear(INPUTS), *joined(x, y, record, label, first=first), dials).flat
                moved = float((after - before).norm()) / allowed
                if moved > worst:
                    worst, what, at = moved, f"{kind} that comes {'first' if first else 'last'}", (record, label, first)
        excess = worst > 1 + TOLERANCE
        found = f"{what} moves the end of {STEPS} steps {worst:.3g} times as far as one record may"
        if not excess:
            return Answer(1.0, found)
        more = joined(x, y, at[0], at[1], first=at[2])
        width = widest_noise(bench, linear(INPUTS), (x, y), more, dials)
        if width is None:
            return Answer(0.0, found)
        bound = bench.claim.implied(
            worst / (1 + TOLERANCE) / width if width else float("inf"),
            confidence=bench.confidence,
            method="largest reach of a record over a training, against the noise on the same records",
            assumption="The reach is the same in every step, and the noise is Gaussian.",
        )
        return Answer(0.0, found, bound)
