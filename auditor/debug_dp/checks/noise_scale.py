"""Whether every tensor gets as much noise as a record may move it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats
from torch import Tensor, nn

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import HUGE, SMALL, bare, joined, natural, network
from auditor.debug_dp.implementation import StepSettings


@dataclass(frozen=True)
class NoiseScale(Check):
    """Exact chi-square tests of the noise in each tensor against noise_multiplier x max_grad_norm / batch size.

    The noise is the update less the same update without noise, so its squared length over the promised variance is
    chi-square whatever the lot. Two clipping norms, none of them 1, show a noise that does not scale with it; lots
    below and above the expected size, and one of small gradients, show one that scales with the lot. More noise than
    promised is no fault here.

    Args:
        repeats: Noisy calls at each setting, at least 1.
    """

    repeats: int = 3

    name: ClassVar[str] = "noise_scale"
    title: ClassVar[str] = "Noise in each tensor"
    invariant: ClassVar[str] = (
        "the noise in each tensor has standard deviation noise_multiplier * max_grad_norm / expected_batch_size"
    )
    order: ClassVar[int] = 10

    def run(self, bench: Harness) -> Answer:
        """Test all tensors at all settings; the smallest p-value counts, corrected for their number."""
        found: list[tuple[float, float, int, str]] = []
        # A training gets room for all records in one lot, since some divide the records by the batch size.
        batch = 32 if bench.implementation.trains else 8
        for lot, model, x, y in _lots(bench):
            for norm in (0.5, 3.0):
                dials = StepSettings(max_grad_norm=norm, noise_multiplier=1.5, expected_batch_size=batch)
                squares = dict.fromkeys(dict(model.named_parameters()), 0.0)
                for _ in range(self.repeats):
                    for name, noise in bench.noise(model, x, y, dials).items():
                        squares[name] += float(noise.square().sum())
                promised = dials.noise_multiplier * bench.contribution(dials)
                for name, parameter in model.named_parameters():
                    freedom = self.repeats * parameter.numel()
                    scaled = squares[name] / promised**2
                    what = f"tensor {name!r} at max_grad_norm {norm:g} and {lot}"
                    found.append((float(stats.chi2.cdf(scaled, freedom)), scaled, freedom, what))
        p_value, scaled, freedom, what = min(found)
        ratio = np.sqrt(scaled / freedom)
        p_value = min(1.0, p_value * len(found))
        sentence = f"the noise is {ratio:.3g} times what is promised in {what}, the least of {len(found)} settings"
        least = stats.chi2.ppf(bench.error / len(found), freedom)
        excess = float("inf") if scaled == 0 else float(np.sqrt(least / scaled))
        if excess <= 1:
            return Answer(p_value, sentence)
        bound = bench.claim.implied(
            excess,
            confidence=bench.confidence,
            method="chi-square limit on the noise of one tensor",
            assumption="A record's gradient may lie in that tensor alone, and the noise is Gaussian.",
        )
        return Answer(p_value, sentence, bound)


def _lots(bench: Harness) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    model = network(64, rng=bench.rng)
    for size in (4, 24):
        x, y = natural(size, 64, rng=bench.rng)
        yield f"{size + 1} records, one of them an outlier", model, *joined(x, y, HUGE * x[0], 1)
    x, y = natural(8, 64, rng=bench.rng, scale=SMALL)
    yield "8 records with small gradients", bare(64, rng=bench.rng), x, y
