"""How the training of many models is laid out on a machine, chosen by a short measurement on it.

What pays differs by network and machine: stacking saves per-operation overhead, which only small networks feel; several
processes with one thread each beat one with many threads where operations are too small to share out; compiling fuses
operations but takes seconds to begin with. Each is tried only where the run is long enough to win the trial back.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from defenses.defense import Job, Sampler
from defenses.engine.executors import Executor, InProcess, Processes
from defenses.engine.memory import freed_memory_is_kept, is_out_of_memory
from defenses.engine.model_stack import ModelStack
from defenses.sampling import poisson_lots, shuffled_lots

# A run of fewer model-steps is over before a measurement would be.
WORTH_MEASURING_STEPS = 1000
# Seconds of work, as measured so far, from which more is tried: other widths; compiling, which runs a compiler; and
# several processes, which are worth more trouble the longer the run.
WORTH_WIDTHS_SECONDS = 10.0
WORTH_COMPILING_SECONDS = 30.0
WORTH_PROCESSES_SECONDS = 30.0
WORTH_COMPILED_PROCESSES_SECONDS = 60.0
# Seconds until a new process takes its first step (it imports PyTorch and records the step), and, compiled, its first.
PROCESS_SECONDS = 10.0
COMPILED_PROCESS_SECONDS = 16.0
# A change must be this much faster to be made: measurements of a tenth of a second are not better than that.
CLEARLY_FASTER = 0.93
MEASURED_SECONDS = 0.3
WIDEST = {"cpu": 32, "cuda": 512}
WIDEST_COMPILED = 4


@dataclass(frozen=True)
class Layout:
    """How to train many models.

    Attributes:
        width: Models stacked per step.
        workers: Processes.
        threads: Threads of each process.
        compiled: Whether steps are compiled.
    """

    width: int
    workers: int
    threads: int
    compiled: bool

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is {self.width}; a stack holds at least 1 model")

    @property
    def executor(self) -> Executor:
        """What runs the stacks."""
        return InProcess() if self.workers == 1 else Processes(self.workers, threads=self.threads)

    def to_json(self) -> str:
        """Return the layout as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """Return the layout that `to_json` wrote."""
        return cls(**json.loads(text))


def usual_layout(job: Job, models: int, device: torch.device) -> Layout:
    """Return what is a fair choice without measuring: stacks for networks without convolutions, one process."""
    usual = 64 if device.type == "cuda" else 8 if job.recipe.architecture.name == "mlp" else 1
    return Layout(min(usual, models), 1, torch.get_num_threads(), compiled=False)


def choose_layout(job: Job, models: int, device: torch.device) -> Layout:
    """Choose a layout for training so many models of one job.

    It measures a few real steps: of ever wider stacks for as long as that helps; compiled; and of one thread, as
    several processes would take them. Each is tried only where the run is long enough to win the trial back, and taken
    where the run would end sooner, its beginning included. Nothing is kept of the models that it trains for that.

    Args:
        job: What is to be trained.
        models: How many models.
        device: Where.

    Returns:
        The layout; a short run gets the usual one.
    """
    usual = usual_layout(job, models, device)
    steps = models * job.recipe.lots.steps
    if steps < WORTH_MEASURING_STEPS or job.defense.trains_itself:
        return usual
    with freed_memory_is_kept():
        if _seconds_if_it_fits(job, usual.width, device) * steps < WORTH_WIDTHS_SECONDS:
            return usual
        seconds, width = _best_width(job, models, device)
        best = _Choice(seconds * steps, Layout(width, 1, usual.threads, compiled=False))
        if best.seconds > WORTH_COMPILING_SECONDS:
            best = best.or_better(_compiled(job, best.layout, steps, device))
        if device.type == "cpu" and usual.threads > 1 and models > 1 and best.seconds > WORTH_PROCESSES_SECONDS:
            with _threads(1):
                alone, narrow = _best_width(job, -(-models // usual.threads), device)
                shared = Layout(narrow, min(usual.threads, -(-models // narrow)), 1, compiled=False)
                best = best.or_better(_Choice(PROCESS_SECONDS + alone * steps / shared.workers, shared))
                if best.seconds > WORTH_COMPILED_PROCESSES_SECONDS:
                    best = best.or_better(_compiled(job, shared, steps, device))
    return best.layout


@dataclass(frozen=True)
class _Choice:
    """A layout and the seconds that a run would take with it."""

    seconds: float
    layout: Layout

    def or_better(self, other: "_Choice") -> "_Choice":
        return other if other.seconds < CLEARLY_FASTER * self.seconds else self


def _compiled(job: Job, layout: Layout, steps: int, device: torch.device) -> _Choice:
    """Measure a layout's steps compiled; on a CPU those gain less from wide stacks."""
    width = min(layout.width, WIDEST_COMPILED) if device.type == "cpu" else layout.width
    seconds = _seconds_per_step(job, width, device, compiled=True) * steps / layout.workers
    begin = COMPILED_PROCESS_SECONDS if layout.workers > 1 else 0.0
    return _Choice(begin + seconds, replace(layout, width=width, compiled=True))


def _best_width(job: Job, models: int, device: torch.device) -> tuple[float, int]:
    """Return the seconds per model-step of the best width, and the width; widths double for as long as it helps."""
    width = 1
    best = _seconds_per_step(job, width, device), width
    while 2 * width <= min(models, WIDEST["cuda" if device.type == "cuda" else "cpu"]):
        width *= 2
        found = _seconds_if_it_fits(job, width, device)
        if found > CLEARLY_FASTER * best[0]:
            break
        best = found, width
    return best


def _seconds_if_it_fits(job: Job, width: int, device: torch.device) -> float:
    """Measure a stack; one for which there is not enough memory takes forever."""
    try:
        return _seconds_per_step(job, width, device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return math.inf


def _seconds_per_step(job: Job, width: int, device: torch.device, *, compiled: bool = False) -> float:
    """Measure real steps of a stack on lots of the usual size; the middle one of three rounds, per model.

    The least would flatter several threads, which wait for each other whenever one of them is held up.
    """
    rng = np.random.default_rng(0)
    share = min(1.0, job.recipe.lots.expected_members / len(job.records))
    included = rng.random((width, len(job.records))) < share
    included[:, 0] = True
    stack = ModelStack(job, included, range(width), device, compiled=compiled)
    draw = poisson_lots if job.defense.sampler is Sampler.POISSON else shuffled_lots
    drawn = [draw(job.recipe.lots, included[k], seed=k, epoch=0) for k in range(width)]
    lots = [sorted(each, key=len)[len(each) // 2] for each in drawn]

    def round_of(count: int) -> float:
        began = time.perf_counter()
        for position in range(count):
            stack.step(lots, [0.0] * width, (0, position))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    round_of(2)  # traces, and compiles
    first = round_of(1)
    count = max(1, int(MEASURED_SECONDS / 3 / max(first, 1e-6)))
    return sorted(round_of(count) for _ in range(3))[1] / width


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def layout_key(job: Job, models: int, device: torch.device) -> str:
    """Return a name under which the choice for a job can be kept.

    More models than 16 do not change the choice, so a run that asks for more shadows later finds those it has.
    """
    bucket = min(16, 1 << (models.bit_length() - 1))
    facts = [repr(job.recipe), repr(job.defense), job.records.digest, bucket, device.type]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
