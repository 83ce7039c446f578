"""The training loop: K models at once, one pure step, any scheme.

Parameters are stacked on a leading axis, and `torch.func` maps one functional step over it. Every random draw comes
from a stream named by (model seed, step, parameter), and every reduction stays inside one model, so a model does not
depend on how many were trained beside it, nor on their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses.defense import Defense, Sampler
from defenses.ensemble import Ensemble, Trace, concatenate
from defenses.errors import TrainingError
from defenses.gradients import GradientRule
from defenses.progress import OnProgress, Progress, silent
from defenses.randomness import Noise, stream
from defenses.recipe import Recipe
from defenses.records import BoolArray, IntArray, Records
from defenses.sampling import poisson_lots, shuffled_lots
from defenses.updates import Tensors, along

# Per-example gradients held at once; larger lots are split into micro-batches, which changes memory and nothing else.
# Above about 32 MiB the C library maps fresh pages for every step, and clearing them costs more than the arithmetic.
PER_EXAMPLE_BYTES = 24 * 2**20


@dataclass(frozen=True)
class Job:
    """What to train: everything but who is in and the seeds.

    Attributes:
        recipe: How.
        defense: Under which scheme.
        records: The pool of n records from which every model's members are taken.
    """

    recipe: Recipe
    defense: Defense
    records: Records


def train(
    job: Job,
    included: BoolArray,
    seeds: Sequence[int],
    *,
    device: str = "auto",
    width: int | None = None,
    on_progress: OnProgress = silent,
    on_models: Callable[[range, Ensemble], None] | None = None,
) -> Ensemble:
    """Train K models on K subsets of one pool.

    Args:
        job: Recipe, scheme and pool of n records.
        included: (K, n) bool: who is in which model.
        seeds: K seeds; a model is a pure function of (job, its row of `included`, its seed).
        device: "cpu", "cuda" or "auto".
        width: Models stacked per step; None chooses by architecture and device.
        on_progress: Called after every epoch of a stack.
        on_models: Called with the indices and the ensemble of every finished stack.

    Returns:
        The K models, in order.

    Raises:
        ValueError: If shapes differ or a model has no records.
        TrainingError: If the architecture cannot be trained this way, or a model diverges.

    Example:
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
    place = resolve_device(device)
    wide = width or default_width(job, place)
    parts = []
    for start in range(0, len(seeds), wide):
        block = range(start, min(start + wide, len(seeds)))

        def report(done: float, models: range = block) -> None:
            total = len(seeds) * job.recipe.lots.epochs
            finished = models.start * job.recipe.lots.epochs + done * len(models)
            on_progress(Progress("training", finished, total, f"{models.start} of {len(seeds)} models done"))

        stack = _Stack(job, included[block.start : block.stop], [seeds[k] for k in block], place)
        part = stack.run(report)
        if on_models is not None:
            on_models(block, part)
        parts.append(part)
    return concatenate(parts)


def resolve_device(device: str) -> torch.device:
    """Return the torch device; "auto" is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def default_width(job: Job, device: torch.device) -> int:
    """Choose how many models to stack: what a stack saves is per-operation overhead, which only small models feel.

    Convolutions on a CPU gain nothing from stacking (the batched kernel is slower); fully connected networks do.
    """
    if device.type == "cuda":
        return 64
    return 8 if job.recipe.architecture.name == "mlp" else 1


class _Stack:
    """One stack of models in training: the mutable part of the loop."""

    def __init__(self, job: Job, included: BoolArray, seeds: Sequence[int], device: torch.device) -> None:
        self.job, self.included, self.seeds, self.device = job, included, seeds, device
        recipe, records = job.recipe, job.records
        dtype = recipe.precision.dtype
        modules = [recipe.architecture.build(records.shape, records.classes, seed=seed, dtype=dtype) for seed in seeds]
        self.module = modules[0]
        _refuse(self.module, recipe.architecture.name)
        first = dict(self.module.named_parameters())
        self.parameters: Tensors = {
            name: torch.stack([dict(module.named_parameters())[name].detach() for module in modules]).to(device)
            for name in first
        }
        self.rule = job.defense.gradient(recipe.lots)
        self.update = job.defense.update(recipe)
        self.update_state = self.update.initial(self.parameters)
        self.rule_states: list[Tensors] = [
            {name: value.to(device) for name, value in self.rule.initial().items()} if self.rule else {} for _ in seeds
        ]
        self._load_records(dtype)
        self._mean_gradients = vmap(grad(self._lot_loss))
        self._example_gradients = vmap(vmap(grad(self._example_loss), in_dims=(None, 0, 0)))

    def _load_records(self, dtype: torch.dtype) -> None:
        """Put what each model trains on on the device; models whose scheme leaves the records alone share one copy."""
        records, banks = self.job.records, []
        self.offsets = np.zeros(len(self.seeds), dtype=np.int64)
        self.facts: list[dict[str, Any]] = []
        for k, seed in enumerate(self.seeds):
            own = records.take(self.included[k])
            prepared, facts = self.job.defense.prepare(own, stream(seed, "prepare"))
            self.facts.append(dict(facts))
            if prepared is own:
                continue
            bank = (records.x.copy(), records.y.copy())
            bank[0][self.included[k]], bank[1][self.included[k]] = prepared.x, prepared.y
            banks.append(bank)
            self.offsets[k] = len(banks) * len(records)
        x = np.concatenate([records.x, *(bank[0] for bank in banks)]) if banks else records.x
        y = np.concatenate([records.y, *(bank[1] for bank in banks)]) if banks else records.y
        self.x = torch.from_numpy(np.ascontiguousarray(x)).to(self.device, dtype)
        self.y = torch.from_numpy(np.ascontiguousarray(y)).to(self.device)

    def _example_loss(self, parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(self.module, parameters, (x[None],)), y[None])

    def _lot_loss(self, parameters: Tensors, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        losses = F.cross_entropy(functional_call(self.module, parameters, (x,)), y, reduction="none")
        return (losses * mask).sum() / mask.sum().clamp(min=1)

    def run(self, report: Callable[[float], None]) -> Ensemble:
        """Train to the end and return the models."""
        recipe = self.job.recipe
        poisson = self.job.defense.sampler is Sampler.POISSON
        draw = poisson_lots if poisson else shuffled_lots
        for epoch in range(recipe.lots.epochs):
            lots = [draw(recipe.lots, self.included[k], seed=seed, epoch=epoch) for k, seed in enumerate(self.seeds)]
            for position in range(max(len(drawn) for drawn in lots)):
                now = [drawn[position] if position < len(drawn) else None for drawn in lots]
                progress = [(epoch + position / len(drawn)) / recipe.lots.epochs for drawn in lots]
                self._step(now, progress, (epoch, position))
            report(epoch + 1)
        self._refuse_divergence()
        return Ensemble(
            recipe.architecture,
            self.job.records.shape,
            self.job.records.classes,
            {name: value.cpu() for name, value in self.parameters.items()},
            tuple(
                Trace(facts, {name: value.tolist() for name, value in state.items()})
                for facts, state in zip(self.facts, self.rule_states, strict=True)
            ),
        )

    def _step(self, lots: Sequence[IntArray | None], progress: Sequence[float], step: tuple[int, int]) -> None:
        """Take one step; a model whose epoch is already over (None) stays exactly as it is."""
        recipe = self.job.recipe
        dtype = recipe.precision.dtype
        rates = [recipe.learning_rate * recipe.schedule.factor(part) for part in progress]
        gradients = self._plain(lots) if self.rule is None else self._ruled(self.rule, lots, step)
        parameters, state = self.update.step(
            self.parameters, gradients, self.update_state, torch.tensor(rates, dtype=dtype, device=self.device)
        )
        if any(lot is None for lot in lots):
            active = torch.tensor([lot is not None for lot in lots], device=self.device)
            parameters = _keep(active, parameters, self.parameters)
            state = _keep(active, state, self.update_state)
        self.parameters, self.update_state = parameters, state

    def _plain(self, lots: Sequence[IntArray | None]) -> Tensors:
        """Return the gradient of each model's mean loss over its lot."""
        indices, mask = self._padded(lots, 0, max(len(lot) for lot in lots if lot is not None))
        found: Tensors = self._mean_gradients(self.parameters, self.x[indices], self.y[indices], mask)
        return found

    def _ruled(self, rule: GradientRule, lots: Sequence[IntArray | None], step: tuple[int, int]) -> Tensors:
        """Return weighted, summed and released per-example gradients over the public normaliser."""
        names = list(self.parameters)
        groups = rule.groups(names)
        sums = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        statistics: Tensor | float = 0.0
        states = {name: torch.stack([state[name] for state in self.rule_states]) for name in self.rule_states[0]}
        longest = max((len(lot) for lot in lots if lot is not None), default=0)
        capacity = self._micro_batch(longest)
        for start in range(0, max(longest, 1), capacity):
            indices, mask = self._padded(lots, start, min(capacity, max(longest, 1)))
            y = self.y[indices]
            examples: Tensors = self._example_gradients(self.parameters, self.x[indices], y)
            norms = _norms(examples, groups, rule.order)
            weights, measured = vmap(rule.factors)(norms, y, mask, states)
            if not bool(norms.isfinite().all()):  # a weight of 0 must drop an example, and 0 * inf does not
                examples = {name: value.nan_to_num(0.0, 0.0, 0.0) for name, value in examples.items()}
            for name, group in zip(names, groups, strict=True):
                kept = weights[:, None, :, group]
                sums[name] += torch.bmm(kept, examples[name].flatten(2))[:, 0].reshape(sums[name].shape)
            statistics = statistics + measured.sum(1)
        return self._release(rule, sums, statistics, step)

    def _release(self, rule: GradientRule, sums: Tensors, statistics: Tensor | float, step: tuple[int, int]) -> Tensors:
        """Hand each model's sums to the rule, with that model's own noise for this step."""
        assert isinstance(statistics, Tensor)
        released = []
        for k, seed in enumerate(self.seeds):
            noisy, self.rule_states[k] = rule.release(
                {name: value[k] for name, value in sums.items()},
                statistics[k],
                self.rule_states[k],
                Noise(seed, "noise", *step, device=self.device),
            )
            released.append(noisy)
        normaliser = self.job.recipe.lots.batch_size
        return {name: torch.stack([noisy[name] for noisy in released]) / normaliser for name in sums}

    def _micro_batch(self, longest: int) -> int:
        first = next(iter(self.parameters.values()))
        per_example = sum(value.numel() for value in self.parameters.values()) * first.element_size()
        return max(1, min(longest, PER_EXAMPLE_BYTES // max(per_example, 1)))

    def _padded(self, lots: Sequence[IntArray | None], start: int, capacity: int) -> tuple[Tensor, Tensor]:
        """Return (K, capacity) record indices and a mask of those that are real."""
        indices = np.repeat(self.offsets[:, None], capacity, axis=1)
        mask = np.zeros(indices.shape, dtype=np.bool_)
        for k, lot in enumerate(lots):
            if lot is not None:
                part = lot[start : start + capacity]
                indices[k, : len(part)] = part + self.offsets[k]
                mask[k, : len(part)] = True
        return torch.from_numpy(indices).to(self.device), torch.from_numpy(mask).to(self.device)

    def _refuse_divergence(self) -> None:
        finite = torch.stack([value.flatten(1).isfinite().all(1) for value in self.parameters.values()]).all(0)
        some = self.x[: min(64, len(self.job.records))]
        with torch.no_grad():  # weights can be finite and so large that no answer is
            logits = vmap(lambda parameters: functional_call(self.module, parameters, (some,)))(self.parameters)
        finite &= logits.isfinite().all(-1).any(1)  # a single record may be broken by itself
        if not bool(finite.all()):
            count, recipe = int((~finite).sum()), self.job.recipe
            raise TrainingError(
                f"{count} of {len(self.seeds)} models diverged to weights or logits that are not finite at rate "
                f"{recipe.learning_rate}; lower the learning rate"
            )


def _norms(examples: Tensors, groups: Sequence[int], order: int) -> Tensor:
    """Return the norm of each example's gradient in each group of parameters: (K, B, G)."""
    totals: list[Tensor | None] = [None] * (max(groups) + 1)
    for value, group in zip(examples.values(), groups, strict=True):
        flat = value.flatten(2)
        part = torch.linalg.vector_norm(flat, order, dim=-1) ** order
        before = totals[group]
        totals[group] = part if before is None else before + part
    stacked = torch.stack([total for total in totals if total is not None], dim=-1)
    return stacked.sqrt() if order == 2 else stacked


def _keep(active: Tensor, new: Tensors, old: Tensors) -> Tensors:
    return {name: torch.where(along(active, value), value, old[name]) for name, value in new.items()}


def _refuse(module: nn.Module, name: str) -> None:
    """Refuse what a pure step mapped over models cannot train faithfully."""
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise TrainingError(
                f"architecture {name!r} has {type(part).__name__} at {path!r}, which mixes the records of a lot; "
                "use GroupNorm instead"
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            raise TrainingError(
                f"architecture {name!r} has {type(part).__name__} at {path!r}, whose draws cannot be repeated per "
                "model; set its probability to 0"
            )
    if next(module.buffers(), None) is not None:
        raise TrainingError(f"architecture {name!r} has buffers that training would change; use layers without them")
