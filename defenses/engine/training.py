"""The training loop: K models at once, one pure step, any scheme.

Parameters are stacked on a leading axis, and one functional step is mapped over it. Every random draw comes from a
stream named by (model seed, step, parameter), and every reduction stays inside one model, so a model does not depend on
how many were trained beside it, nor on their order.
"""

import functools
import logging
import time
from collections.abc import Sequence

import torch

from defenses.defense import Job as Job
from defenses.engine.layout import usual_layout
from defenses.engine.memory import freed_memory_is_kept, is_out_of_memory
from defenses.engine.model_stack import ModelStack
from defenses.engine.probe import Probe
from defenses.ensemble import Ensemble, concatenate
from defenses.errors import TrainingError
from defenses.progress import OnProgress, Progress, silent
from defenses.records import BoolArray

_log = logging.getLogger(__name__)


def train(
    job: Job,
    included: BoolArray,
    seeds: Sequence[int],
    *,
    device: str = "auto",
    width: int | None = None,
    compiled: bool = False,
    probe: Probe | None = None,
    on_progress: OnProgress = silent,
) -> Ensemble:
    """Train K models on K subsets of one pool.

    Args:
        job: Recipe, scheme and pool of n records.
        included: (K, n) bool: who is in which model.
        seeds: K seeds; a model is a pure function of (job, its row of `included`, its seed).
        device: "cpu", "cuda" or "auto".
        width: Models stacked per step; None takes what is usual for the network and device (the store measures). Where
            memory does not allow it, stacks are halved.
        compiled: Whether to compile the steps; pays for runs of minutes. Without a compiler they run as recorded.
        probe: An auditor's canaries and eyes, attached to every model; seeds must then differ.
        on_progress: Called after every epoch of a stack.

    Returns:
        The K models, in order.

    Raises:
        ValueError: If shapes differ, a model has no records, or a probe is to watch models of one seed.
        TrainingError: If the architecture cannot be trained this way, a model diverges, or there is a probe and the
            scheme has no rule for per-example gradients.

    Examples:
        >>> ensemble = train(job, included, [1, 2, 3])          # doctest: +SKIP
        >>> ensemble.logits(job.records.x).shape                # doctest: +SKIP
        (3, 1000, 10)
    """
    if included.shape != (len(seeds), len(job.records)):
        raise ValueError(
            f"included is {included.shape}; it must be (models, records) = ({len(seeds)}, {len(job.records)})"
        )
    if not included.any(axis=1).all():
        raise ValueError("a model has no records at all; use a larger pool or a larger inclusion probability")
    if probe is not None and len(set(seeds)) < len(seeds):
        raise ValueError("two models have the same seed, by which a probe tells them apart; give each its own")
    place = resolve_device(device)
    if job.defense.trains_itself:
        if probe is not None:
            raise TrainingError(f"scheme {job.defense.name!r} trains in its own way, which no probe can watch")
        return job.defense.train(job, included, seeds, device=str(place), on_progress=on_progress)
    wide = width or usual_layout(job, len(seeds), place).width
    meter = _Meter(job, included, on_progress)
    parts = []
    with freed_memory_is_kept():
        for start in range(0, len(seeds), wide):
            block = slice(start, start + wide)
            parts += _train_block(
                job, included[block], seeds[block], place, compiled=compiled, meter=meter, probe=probe
            )
    return concatenate(parts)


class _Meter:
    """Counts epochs of models and examples, and reports how far and how fast."""

    def __init__(self, job: Job, included: BoolArray, on_progress: OnProgress) -> None:
        self.models, self.epochs = len(included), job.recipe.lots.epochs
        self.examples = float(included.sum()) / self.models  # per model and epoch, on average
        self.on_progress, self.began, self.done = on_progress, time.monotonic(), 0

    def __call__(self, models: int) -> None:
        """Report one more epoch of so many models."""
        self.done += models
        rate = self.done * self.examples / max(time.monotonic() - self.began, 1e-9)
        detail = f"{self.done // self.epochs} of {self.models} models done, {rate:,.0f} examples/s"
        self.on_progress(Progress("training", self.done, self.models * self.epochs, detail))


def _train_block(
    job: Job,
    included: BoolArray,
    seeds: Sequence[int],
    device: torch.device,
    *,
    compiled: bool,
    meter: _Meter,
    probe: Probe | None = None,
    share: float = 1.0,
) -> list[Ensemble]:
    """Train one stack; where memory runs out, its halves, and in the end ever smaller micro-batches of one model."""
    before = meter.done
    try:
        return [ModelStack(job, included, seeds, device, compiled=compiled, probe=probe, share=share).run(meter)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(seeds) == 1 and (job.defense.gradient(job.recipe.lots) is None or share < 2**-12):
            raise TrainingError(
                "there is not enough memory to train a single model; use a smaller batch_size or a smaller network"
            ) from error
    meter.done = before
    if device.type == "cuda":
        torch.cuda.empty_cache()
    half = (len(seeds) + 1) // 2
    again = functools.partial(_train_block, job, device=device, compiled=compiled, meter=meter, probe=probe)
    if len(seeds) == 1:
        return again(included, seeds, share=share / 2)
    _log.warning("out of memory with %d models at once; going on with %d", len(seeds), half)
    return again(included[:half], seeds[:half]) + again(included[half:], seeds[half:])


def resolve_device(device: str) -> torch.device:
    """Return the torch device; "auto" is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
