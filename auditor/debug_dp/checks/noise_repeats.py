"""Whether noise is drawn afresh: in each tensor, at each step, in each run."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

from scipy import stats
from torch import Tensor

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import SMALL, bare, linear, natural
from auditor.debug_dp.implementation import StepSettings


@dataclass(frozen=True)
class NoiseRepeats(Check):
    """Exact tests of the correlation of noise between calls and tensors, and of its growth over the steps of one run.

    The square of the cosine between two independent Gaussian vectors of d entries is Beta(1/2, (d - 1)/2). Noise that
    repeats within a run adds up like its number of steps, not like the root of it, so the variance after T steps over
    T times the variance after one is compared with an F distribution. Torch is never seeded here: seeding it alike
    before each call would make sound code look as if it repeated, and seeding it differently would hide code that
    seeds once when it is imported.

    Args:
        calls: Calls that are compared, at least 2.
        steps: T.
    """

    calls: int = 4
    steps: int = 8

    name: ClassVar[str] = "noise_repeats"
    title: ClassVar[str] = "Fresh noise"
    invariant: ClassVar[str] = "noise is drawn afresh for each tensor, step and run"
    order: ClassVar[int] = 20

    def run(self, bench: Harness) -> Answer:
        """Compare all pairs; the smallest p-value counts, corrected for their number."""
        model = bare(64, rng=bench.rng)
        x, y = natural(8, 64, rng=bench.rng, scale=SMALL)
        dials = StepSettings(max_grad_norm=2.0, noise_multiplier=1.0)
        drawn = [bench.noise(model, x, y, dials) for _ in range(self.calls)]
        found = []
        for (i, one), (j, other) in itertools.combinations(enumerate(drawn), 2):
            for name in one:
                found.append(_alike(one[name], other[name], f"calls {i + 1} and {j + 1} in tensor {name!r}"))
        for a, b in itertools.combinations(drawn[0], 2):
            found.append(_alike(drawn[0][a], drawn[0][b], f"tensors {a!r} and {b!r} of one call"))
        found.append(self._growth(bench))
        p_value, what = min(found)
        return Answer(
            p_value=min(1.0, p_value * len(found)),
            found=f"the least likely of {len(found)} comparisons is {what} (p {p_value:.2g} by itself)",
        )

    def _growth(self, bench: Harness) -> tuple[float, str]:
        x, y = natural(8, 512, rng=bench.rng, scale=SMALL)
        one = StepSettings(noise_multiplier=1.0, learning_rate=1e-4)  # so small that gradients stay as they are
        many = StepSettings(noise_multiplier=1.0, learning_rate=1e-4, steps=self.steps)
        after = {dials.steps: _square(bench.noise(linear(512), x, y, dials)) for dials in (one, many)}
        freedom = 2 * 512
        if after[1] == 0:
            return 1.0, "no noise to compare"
        ratio = after[self.steps] / (self.steps * after[1])
        return (
            float(stats.f.sf(ratio, freedom, freedom)),
            f"a variance after {self.steps} steps of {ratio:.3g} times what independent noise adds up to",
        )


def _alike(one: Tensor, other: Tensor, what: str) -> tuple[float, str]:
    """Return the p-value of the correlation between two vectors, cut to the shorter, and what was compared."""
    size = min(one.numel(), other.numel())
    a, b = one.reshape(-1)[:size], other.reshape(-1)[:size]
    lengths = float(a.norm() * b.norm())
    if lengths == 0 or size < 2:
        return 1.0, f"{what}: no noise to compare"
    cosine = float(a @ b) / lengths
    # From the small side of the beta distribution: 1 - cosine^2 keeps its digits where the cosine is 1.
    p_value = float(stats.beta.cdf(max(0.0, 1 - cosine**2), (size - 1) / 2, 0.5))
    return p_value, f"a correlation of {cosine:.3g} between {what}"


def _square(noise: dict[str, Tensor]) -> float:
    return sum(float(value.square().sum()) for value in noise.values())
