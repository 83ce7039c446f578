"""Whether sums are divided by a constant that was fixed in advance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy import stats

from auditor.debug_dp.bench import TOLERANCE, Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import HUGE, SMALL, joined, linear
from auditor.debug_dp.implementation import StepSettings

INPUTS = 1024


@dataclass(frozen=True)
class Normaliser(Check):
    """Compare the scale of the update between lots, or data sets, that differ in size alone.

    Of a step: lots of 2 and of 32 records at an expected size of 8, and one outlier with and without company. Of a
    training: 63, 64 and 65 records at sampling probability 1/8, where int(n * q), n // batch_size and the number of
    batches jump, and an empty lot is unlikely. With many parameters the spread of the noise itself tells how many
    records there were, which no clipping hides.
    """

    name: ClassVar[str] = "normaliser"
    title: ClassVar[str] = "Public normaliser"
    invariant: ClassVar[str] = "sums are divided by a public constant, never by a count that depends on who is in"
    order: ClassVar[int] = 40

    def run(self, bench: Harness) -> Answer:
        """F-tests between the spreads of noise, two-sided and corrected; for a step also the quiet contribution."""
        if bench.implementation.trains:
            dials = StepSettings(noise_multiplier=4.0, expected_batch_size=8, sampling_probability=1 / 8)
            return self._compare(bench, (63, 64, 65), dials, "data set of {} records")
        found = self._compare(bench, (2, 8, 32), StepSettings(noise_multiplier=4.0), "lot of {} records")
        dials = StepSettings()
        x, y = (
            torch.zeros(15, INPUTS),
            torch.zeros(15, dtype=torch.long),
        )  # no gradient, whatever the rule makes of small ones
        record = torch.zeros(INPUTS)
        record[0] = HUGE
        alone = bench.moved(linear(INPUTS), record[None], torch.zeros(1, dtype=torch.long), dials).norm
        among = bench.moved(linear(INPUTS), *joined(x, y, record, 0), dials).norm
        if abs(among - alone) > 2 * TOLERANCE * max(alone, among):
            return Answer(0.0, f"an outlier adds {alone:.4g} alone and {among:.4g} beside 15 records without gradient")
        return found

    def _compare(self, bench: Harness, sizes: tuple[int, ...], dials: StepSettings, what: str) -> Answer:
        spreads = {}
        for size in sizes:
            # At right angles, more or less: a rule that lifts small gradients to full length must not add them up.
            x = torch.from_numpy(SMALL * bench.rng.standard_normal((size, INPUTS))).float()
            y = torch.arange(size) % 2
            spreads[size] = float(bench.moved(linear(INPUTS), x, y, dials).flat.square().sum())
        freedom = 2 * INPUTS
        pairs = [(a, b) for i, a in enumerate(sizes) for b in sizes[i + 1 :] if spreads[a] > 0 and spreads[b] > 0]
        if not pairs:
            return Answer(None, "there is no noise whose spread could be compared")
        compared = []
        for a, b in pairs:
            ratio = spreads[b] / spreads[a]
            p_value = 2 * min(stats.f.cdf(ratio, freedom, freedom), stats.f.sf(ratio, freedom, freedom))
            compared.append((float(p_value), ratio**0.5, a, b))
        p_value, ratio, a, b = min(compared)
        return Answer(
            min(1.0, p_value * len(compared)),
            f"the noise of a {what.format(b)} is {ratio:.3g} times as wide as that of a {what.format(a)}",
        )
