"""How the accuracy of one model grows while it is trained, and at what cost of time; kept, so that it is done once."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from auditor.context import RunContext
from defenses.defense import Job, Sampler
from defenses.engine.code_digest import digest_of_training
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.training import train
from defenses.records import BoolArray, Records
from defenses.updates import Tensors


@dataclass(frozen=True)
class Curve:
    """What one run showed; epochs are numbered from 1.

    Attributes:
        seconds: Of training, up to the end of each epoch; on a CPU those of the processor, not of the clock.
        accuracy: Share of test records that are right after each epoch.
        right: Which of them are right in the end, one "0" or "1" each.
    """

    seconds: list[float]
    accuracy: list[float]
    right: str

    def time_to(self, accuracy: float, *, start: float) -> float:
        """Return when an accuracy is first reached, between epochs by a straight line; infinity if it never is.

        Args:
            accuracy: In [0, 1].
            start: Accuracy before the first step.
        """
        before, at = start, 0.0
        for seconds, found in zip(self.seconds, self.accuracy, strict=True):
            if found >= accuracy:
                share = 0.0 if found <= before else max((accuracy - before) / (found - before), 0.0)
                return at + share * (seconds - at)
            before, at = found, seconds
        return float("inf")


def learning_curve(job: Job, test: Records, *, seed: int, context: RunContext) -> Curve:
    """Train one model on all records of a job, and test it after every epoch; testing is not part of the seconds.

    Args:
        job: Its scheme has a rule for per-example gradients.
        test: What it is tested on.
        seed: The model's seed.
        context: Where to work. A curve that is there already is not made again.
    """
    parts = [
        repr(job.recipe),
        repr(job.defense),
        job.records.digest,
        test.digest,
        seed,
        context.place,
        torch.__version__,
        digest_of_training(job.recipe.architecture.module, type(job.defense).__module__),
    ]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    storage, name = context.workspace.kept("curves"), f"{name}.curve"
    kept = storage.read(name)
    if kept is not None:
        return Curve(**json.loads(kept))
    probe = _Tests(job, test, device=context.place)
    everyone = np.ones((1, len(job.records)), dtype=np.bool_)
    train(job, everyone, [seed], device=context.place, probe=probe, on_progress=context.on_progress)
    curve = Curve(probe.seconds, probe.accuracy, "".join("01"[bool(each)] for each in probe.right))
    storage.write(json.dumps(asdict(curve)).encode(), name)
    return curve


class _Tests:
    """A probe that adds nothing, and tests the model at the end of every epoch with the clock stopped.

    Args:
        job: What is trained.
        test: What it is tested on.
        device: Where.
    """

    def __init__(self, job: Job, test: Records, *, device: str) -> None:
        recipe, records = job.recipe, job.records
        each = records.classes if job.defense.sampler is Sampler.POISSON_BY_LABEL else 1
        self._last = recipe.lots.steps_per_epoch * each - 1
        module = recipe.architecture.build(records.shape, records.classes, seed=0, dtype=recipe.precision.dtype)
        self._module: nn.Module = module.to(device).eval()
        self._x = torch.from_numpy(test.x).to(device, recipe.precision.dtype)
        self._y = torch.from_numpy(test.y).to(device)
        self._cuda = torch.device(device).type == "cuda"
        self._spent, self._since = 0.0, self._now()
        self.seconds: list[float] = []
        self.accuracy: list[float] = []
        self.right: BoolArray = np.zeros(0, dtype=np.bool_)

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Return one gradient that never joins, and begin."""
        self.seconds.clear()
        self.accuracy.clear()
        self._spent, self._since = 0.0, self._now()
        return {name: Materialised(torch.zeros_like(value)[None]) for name, value in parameters.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return that nothing is added."""
        return np.zeros(1, dtype=np.bool_)

    def read(self, reading: Reading) -> None:
        """Test the model if the epoch is over."""
        if reading.step[1] != self._last:
            return
        self._spent += self._now() - self._since
        self.right = self._answers(reading.after)
        self.seconds.append(self._spent)
        self.accuracy.append(float(self.right.mean()))
        self._since = self._now()

    def _answers(self, parameters: Mapping[str, Tensor]) -> BoolArray:
        with torch.no_grad():
            said = [functional_call(self._module, dict(parameters), (part,)) for part in torch.split(self._x, 1000)]
            right: BoolArray = (torch.cat(said).argmax(1) == self._y).cpu().numpy()
        return right

    def _now(self) -> float:
        if not self._cuda:  # the machine may do other things meanwhile
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()
