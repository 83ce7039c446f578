"""Whether lots are drawn as they are priced: each record by its own coin at every step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.counting import columns, seen, visits
from auditor.debug_dp.implementation import StepSettings

RECORDS, BATCH = 32, 8
_SIMULATED = 20_000


@dataclass(frozen=True)
class PoissonLots(Check):
    """Count in which lots each record is, and compare with independent coins of the sampling probability.

    Each record is one-hot, so on a linear model without noise it moves a column of its own by as much each time that
    it is seen. Of runs of one step the sizes of lots must spread like a binomial, of runs of one epoch the visits of
    each record: shuffled batches visit each exactly once. Spreads are compared with simulated ones, so p-values are
    exact to within the simulation.

    Args:
        lots: Runs of one step, at least 2.
        epochs: Runs of 1 / q steps, at least 1.
    """

    lots: int = 24
    epochs: int = 4

    name: ClassVar[str] = "sampler"
    title: ClassVar[str] = "Poisson lots"
    invariant: ClassVar[str] = (
        "each record enters each lot by its own coin of the sampling probability, as Poisson accounting assumes"
    )
    order: ClassVar[int] = 70
    needs_training: ClassVar[bool] = True

    def run(self, bench: Harness) -> Answer:
        """Test the rate, the spread of sizes and the spread of visits; the smallest p-value counts, times three."""
        q = BATCH / RECORDS
        dials = StepSettings(expected_batch_size=BATCH, sampling_probability=q, learning_rate=1e-4)
        moved = np.stack([columns(bench, RECORDS, dials) for _ in range(self.lots)])
        visit = float(moved[moved > 0].min(initial=np.inf))
        lots = np.stack([seen(each) for each in moved])
        if np.isnan(lots).any():  # perhaps a record is visited more than once in what should be one step
            lots = visits(moved, visit)
        if np.isnan(lots).any():
            return Answer(None, "records do not move the model by whole contributions, so lots cannot be counted")
        sizes = lots.sum(axis=1)
        # Fewer visits than are priced cost no privacy: spreads are held against the rate that is met, if it is lower.
        met = min(q, float(lots.mean()))
        found = [
            (
                float(stats.binom.sf(sizes.sum() - 1, self.lots * RECORDS, q)),
                f"{sizes.sum() / self.lots:.3g} records a lot where {BATCH} are expected",
            ),
            (
                _spread_p(sizes[None], RECORDS, met, rng=bench.rng),
                f"sizes of {self.lots} lots from {sizes.min()} to {sizes.max()}, with variance {sizes.var(ddof=1):.3g} "
                f"where {RECORDS * met * (1 - met):.3g} is expected",
            ),
        ]
        steps = RECORDS // BATCH
        epoch = StepSettings(expected_batch_size=BATCH, sampling_probability=q, learning_rate=1e-4, steps=steps)
        whole = visits(np.stack([columns(bench, RECORDS, epoch) for _ in range(self.epochs)]), visit)
        if np.isfinite(whole).all():
            found.append(
                (
                    _spread_p(whole, steps, met, rng=bench.rng),
                    f"visits of a record in {steps} steps from {whole.min():g} to {whole.max():g}, with variance "
                    f"{whole.var():.3g} where {steps * met * (1 - met):.3g} is expected",
                )
            )
        p_value, what = min(found)
        return Answer(min(1.0, p_value * len(found)), what)


def _spread_p(counts: npt.NDArray[np.float64], trials: int, q: float, *, rng: np.random.Generator) -> float:
    """Return the two-sided p-value of the spread within rows of counts, by simulation of binomial ones."""

    def spread(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(((rows - rows.mean(axis=-1, keepdims=True)) ** 2).sum(axis=(-2, -1)))

    found = spread(counts)
    simulated = spread(rng.binomial(trials, q, (_SIMULATED, *counts.shape)).astype(np.float64))
    below = (1 + (simulated <= found).sum()) / (1 + _SIMULATED)
    above = (1 + (simulated >= found).sum()) / (1 + _SIMULATED)
    return float(min(1.0, 2 * min(below, above)))
