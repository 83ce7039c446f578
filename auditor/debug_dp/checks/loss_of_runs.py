"""Many runs, scored by the final model's loss on the canary: what an adversary who only queries the model sees."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from auditor.debug_dp.bench import Harness, ModelDelta
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.many_runs import LEARNING_RATE, Runs, judged


@dataclass(frozen=True)
class LossOfRuns(Check):
    """Bound epsilon from the loss of the canary at the end of runs with and without it.

    Source: Jagielski, Ullman and Oprea (2020), Auditing Differentially Private Machine Learning; crafted as in
    Annamalai and De Cristofaro (2024).
    """

    name: ClassVar[str] = "loss_of_runs"
    title: ClassVar[str] = "Many runs by the canary's loss"
    invariant: ClassVar[str] = "the loss of the final model on one record tells no more than epsilon allows"
    order: ClassVar[int] = 200

    def run(self, bench: Harness) -> Answer:
        """Score all runs by the logit of the canary's label: ordered as by the loss, and it never saturates."""
        return judged(bench, _score, "the loss on the canary")


def _score(runs: Runs, update: ModelDelta) -> float:
    final = {
        name: value.detach() + LEARNING_RATE * update.parameters[name] for name, value in runs.model.named_parameters()
    }
    outputs = torch.func.functional_call(runs.model, final, (runs.canary.double(),))
    return float(outputs[runs.label] - outputs[1 - runs.label])
