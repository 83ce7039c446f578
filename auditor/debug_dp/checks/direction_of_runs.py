"""Many runs, scored along the direction in which the canary moves a model without noise."""

from dataclasses import dataclass
from typing import ClassVar

from auditor.debug_dp.bench import Harness, ModelDelta
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.many_runs import Runs, judged


@dataclass(frozen=True)
class DirectionOfRuns(Check):
    """Bound epsilon from how far runs with and without the canary moved in its own direction.

    Source: the white-box attack of Nasr et al. (2021), Adversary Instantiation, on final weights.
    """

    name: ClassVar[str] = "direction_of_runs"
    title: ClassVar[str] = "Many runs by the canary's direction"
    invariant: ClassVar[str] = "the final weights tell no more about one record than epsilon allows"
    order: ClassVar[int] = 210

    def run(self, bench: Harness) -> Answer:
        """Score all runs by the projection."""
        return judged(bench, _score, "the move in the canary's direction")


def _score(runs: Runs, update: ModelDelta) -> float:
    return float(update.flat @ runs.direction)
