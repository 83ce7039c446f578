"""Many runs, scored by how far the model moved at all: sees noise whose width depends on the records."""

from dataclasses import dataclass
from typing import ClassVar

from auditor.debug_dp.bench import Harness, ModelDelta
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.many_runs import Runs, judged


@dataclass(frozen=True)
class SizeOfRuns(Check):
    """Bound epsilon from the length of the update of runs with and without the canary.

    The length of d Gaussian entries is known to within 1 / sqrt(2 d), so with many parameters a normaliser that
    depends on the number of records shows in every run, though clipping and noise are in order.
    """

    name: ClassVar[str] = "size_of_runs"
    title: ClassVar[str] = "Many runs by the size of the update"
    invariant: ClassVar[str] = "the size of the whole update tells no more about one record than epsilon allows"
    order: ClassVar[int] = 220

    def run(self, bench: Harness) -> Answer:
        """Score all runs by the norm."""
        return judged(bench, _score, "the size of the update")


def _score(runs: Runs, update: ModelDelta) -> float:
    return update.norm
