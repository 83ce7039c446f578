"""One stack of models in training: their weights, their lots, and one step after another."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from defenses.architectures import with_input_transform
from defenses.defense import Defense, Job, Sampler
from defenses.engine.probe import Probe, Probed, Reading
from defenses.engine.stacked_records import load_bank
from defenses.engine.step_functions import StepFunctions
from defenses.ensemble import Ensemble, Trace
from defenses.errors import TrainingError
from defenses.gradients import LotRule, Measures, ReviewedRule
from defenses.input_transform import released_weights
from defenses.randomness import Noise
from defenses.recipe import Recipe
from defenses.records import BoolArray, IntArray, Shape
from defenses.sampling import by_label, poisson_lots, shuffled_lots
from defenses.updates import Tensors, along

# What per-example gradients may take at once; larger lots are split into micro-batches, which changes memory and
# nothing else. On a CPU, blocks above 32 MiB are mapped afresh at every step, and clearing them costs more than the
# arithmetic.
LARGEST_BYTES = {"cpu": 32 * 2**20, "cuda": 2**31}
TOTAL_BYTES = {"cpu": 2**30, "cuda": 2**33}


@dataclass(frozen=True)
class _Kind:
    """What the pure functions of a job depend on: jobs of one kind share them."""

    recipe: Recipe
    defense: Defense
    shape: Shape
    classes: int
    device: torch.device

    def program(self) -> StepFunctions:
        return StepFunctions(self.recipe, self.defense, self.shape, self.classes, self.device)


@functools.lru_cache(maxsize=4)
def _shared_program(kind: _Kind) -> StepFunctions:
    return kind.program()


def _program(kind: _Kind) -> StepFunctions:
    try:
        return _shared_program(kind)
    except TypeError:  # a scheme from elsewhere may hold what cannot be hashed
        return kind.program()


class ModelStack:
    """One stack of models in training: the mutable part of the loop.

    Args:
        job: What to train.
        included: (K, n) bool.
        seeds: K seeds.
        device: Where.
        compiled: Whether to compile the steps.
        probe: An auditor's canaries and eyes.
        share: Share of the usual memory that per-example gradients may take.
    """

    def __init__(
        self,
        job: Job,
        included: BoolArray,
        seeds: Sequence[int],
        device: torch.device,
        *,
        compiled: bool = False,
        probe: Probe | None = None,
        share: float = 1.0,
    ) -> None:
        self.job, self.included, self.seeds, self.device, self.compiled = job, included, seeds, device, compiled
        recipe, records = job.recipe, job.records
        dtype = recipe.precision.dtype
        self.bank = load_bank(job, included, seeds, device=device, dtype=dtype)
        shape, self.x, self.y = self.bank.shape, self.bank.x, self.bank.y
        self.program = _program(_Kind(recipe, job.defense, shape, records.classes, device))
        modules = [recipe.architecture.build(shape, records.classes, seed=seed, dtype=dtype) for seed in seeds]
        if job.initial is not None:
            for module in modules:
                module.load_state_dict({name: value[0] for name, value in job.initial.parameters.items()})
        self.module = modules[0].to(device).eval()

        def stacked(values: Sequence[dict[str, Tensor]]) -> Tensors:
            return {name: torch.stack([each[name].detach() for each in values]).to(device) for name in values[0]}

        self.parameters = stacked([dict(module.named_parameters()) for module in modules])
        self.buffers = stacked([dict(module.named_buffers()) for module in modules])
        self.update_state = self.program.update.initial(self.parameters)
        rule = self.program.rule
        self.rule_states: list[Tensors] = [
            {name: value.to(device) for name, value in rule.initial().items()} if rule else {} for _ in seeds
        ]
        self._largest_lot = self._affordable(share) if rule else None
        self._common: frozenset[int] = frozenset()
        self._probed = None if probe is None else self._attach(probe)

    def _attach(self, probe: Probe) -> Probed:
        if self.program.rule is None:
            raise TrainingError(
                f"scheme {self.job.defense.name!r} has no rule for per-example gradients, so there is nothing to add a "
                "canary's to; audit it by its outputs"
            )
        return Probed(probe, self.program.rule, _model(self.parameters, 0))

    def run(self, meter: Callable[[int], None]) -> Ensemble:
        """Train to the end, calling the meter with the number of models after every epoch, and return the models."""
        recipe, rule = self.job.recipe, self.program.rule
        done = [False] * len(self.seeds)
        for epoch in range(recipe.lots.epochs):
            lots = [[] if done[k] else self._lots(k, epoch) for k in range(len(self.seeds))]
            steps = [
                [drawn[position] if position < len(drawn) else None for drawn in lots]
                for position in range(max(len(drawn) for drawn in lots))
            ]
            if epoch == 0:
                self._common = self._common_capacities(steps)
            for position, now in enumerate(steps):
                progress = [(epoch + position / max(len(drawn), 1)) / recipe.lots.epochs for drawn in lots]
                self.step(now, progress, (epoch, position))
            if isinstance(rule, ReviewedRule):
                done = [done[k] or self._reviewed(rule, k, epoch) for k in range(len(self.seeds))]
            meter(len(self.seeds))
        self._refuse_divergence()
        return self._ensemble()

    def _lots(self, k: int, epoch: int) -> list[IntArray]:
        """Draw the lots of one model's epoch."""
        lots, sampler, included = self.job.recipe.lots, self.job.defense.sampler, self.bank.included[k]
        draw = shuffled_lots if sampler is Sampler.SHUFFLE else poisson_lots
        drawn = draw(lots, included, seed=self.seeds[k], epoch=epoch)
        if sampler is not Sampler.POISSON_BY_LABEL:
            return drawn
        return by_label(drawn, [self.bank.labels(k, lot) for lot in drawn], self.job.records.classes)

    def _reviewed(self, rule: ReviewedRule, k: int, epoch: int) -> bool:
        """Let the rule look at how one model does, and return whether it stops."""
        weights = _model(self.parameters | self.buffers, k)
        right = functools.partial(_right, self.module, weights)
        measures = Measures(
            epoch + 1, lambda: right(*self.bank.of(k)), lambda: right(*self.bank.public(k, self.job.public))
        )
        noise = Noise(self.seeds[k], "review", epoch, device=self.device)
        self.rule_states[k] = rule.review(self.rule_states[k], measures, noise)
        return rule.done(self.rule_states[k])

    def _ensemble(self) -> Ensemble:
        """Return the models as they are now."""
        architecture, weights = self.job.recipe.architecture, self.parameters | self.buffers
        if self.bank.fronts:
            architecture = with_input_transform(architecture, self.bank.fronts[0])
            weights = released_weights(weights, self.bank.stacked_fronts)
        return Ensemble(
            architecture,
            self.job.records.shape,
            self.job.records.classes,
            {name: value.cpu() for name, value in weights.items()},
            tuple(
                Trace(facts, {name: value.tolist() for name, value in state.items()})
                for facts, state in zip(self.bank.facts, self.rule_states, strict=True)
            ),
        )

    def step(self, lots: Sequence[IntArray | None], progress: Sequence[float], step: tuple[int, int]) -> None:
        """Take one step; a model whose epoch is already over (None) stays exactly as it is.

        Args:
            lots: Record indices of each model's lot.
            progress: How much of each model's run is done, in [0, 1).
            step: (epoch, position in the epoch), which names the random streams.
        """
        recipe = self.job.recipe
        factors = [recipe.learning_rate * recipe.schedule.factor(part) for part in progress]
        rates = torch.tensor(factors, dtype=recipe.precision.dtype, device=self.device)
        views = self._views(lots, step)
        old = self.parameters, self.buffers, self.update_state
        if self.program.rule is None:
            capacity = self._rounded(max(len(lot) for lot in lots if lot is not None))
            lot = self.bank.padded(lots, views, 0, capacity)
            graph, compiled = self.program.step, self._compile_for(capacity)
            new = graph(*old, rates, self.x, self.y, *lot, compiled=compiled)
        else:
            if isinstance(self.program.rule, LotRule):
                self._prepare_step(self.program.rule, lots, views, step)
            sums, statistics = self._sums(lots, views)
            released = self._release(sums, statistics, lots, step)
            moved = self.program.move(self.parameters, released, self.update_state, rates, compiled=self.compiled)
            new = moved[0], self.buffers, moved[1]
            if self._probed is not None:
                self._show(self._probed, lots, step, (sums, released, self.parameters, moved[0]), factors)
        if any(lot is None for lot in lots):
            active = torch.tensor([lot is not None for lot in lots], device=self.device)
            new = tuple(_keep(active, *pair) for pair in zip(new, old, strict=True))
        self.parameters, self.buffers, self.update_state = new

    def _prepare_step(
        self, rule: LotRule, lots: Sequence[IntArray | None], views: Sequence[IntArray | None], step: tuple[int, int]
    ) -> None:
        """Show each model's rule the norms of its whole lot."""
        longest = max((len(lot) for lot in lots if lot is not None), default=0)
        capacity = self._micro_batch(longest)
        found = []
        for start in range(0, max(longest, 1), capacity):
            lot = self.bank.padded(lots, views, start, capacity)
            compiled = self._compile_for(capacity)
            norms = self.program.norms(self.parameters, self.x, self.y, *lot, compiled=compiled)
            found.append((norms, self.y[lot[0]], lot[1]))
        norms, labels, mask = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        for k, seed in enumerate(self.seeds):
            if lots[k] is not None:
                noise = Noise(seed, "selection", *step, device=self.device)
                self.rule_states[k] = rule.prepare_step(norms[k], labels[k], mask[k], self.rule_states[k], noise)

    def _sums(self, lots: Sequence[IntArray | None], views: Sequence[IntArray | None]) -> tuple[Tensors, Tensor]:
        """Return weighted and summed per-example gradients, and summed statistics (K, S)."""
        states = {name: torch.stack([state[name] for state in self.rule_states]) for name in self.rule_states[0]}
        longest = max((len(lot) for lot in lots if lot is not None), default=0)
        capacity = self._micro_batch(longest)
        sums: Tensors = {}
        statistics: Tensor | None = None
        for start in range(0, max(longest, 1), capacity):
            lot = self.bank.padded(lots, views, start, capacity)
            arguments = (self.parameters, self.x, self.y, *lot, states)
            # Asking whether all norms are finite would make a GPU wait at every step, so there it is not asked.
            compiled, asked = self._compile_for(capacity), self.device.type == "cpu"
            part = (self.program.sums if asked else self.program.careful_sums)(*arguments, compiled=compiled)
            if asked and not bool(part[2].all()):
                part = self.program.careful_sums(*arguments)
            sums = {name: sums[name] + value for name, value in part[0].items()} if sums else part[0]
            statistics = part[1] if statistics is None else statistics + part[1]
        assert statistics is not None
        return sums, statistics

    def _release(
        self, sums: Tensors, statistics: Tensor, lots: Sequence[IntArray | None], step: tuple[int, int]
    ) -> Tensors:
        """Hand each model's sums, with a probe's canaries, to the rule, with that model's own noise for this step."""
        assert self.program.rule is not None
        released = []
        for k, seed in enumerate(self.seeds):
            if lots[k] is None:  # this model takes no step
                released.append(_model(sums, k))
                continue
            own, state = (_model(sums, k), statistics[k]), self.rule_states[k]
            if self._probed is not None:
                own = self._probed.added(*own, state, seed, step)
            noisy, self.rule_states[k] = self.program.rule.release(
                *own,
                state,
                Noise(seed, "noise", *step, device=self.device, compiled=self.compiled),
            )
            released.append(noisy)
        if len(released) == 1:
            return {name: value[None] for name, value in released[0].items()}
        return {name: torch.stack([noisy[name] for noisy in released]) for name in sums}

    def _show(
        self,
        probed: Probed,
        lots: Sequence[IntArray | None],
        step: tuple[int, int],
        tensors: tuple[Tensors, Tensors, Tensors, Tensors],
        rates: Sequence[float],
    ) -> None:
        """Let the probe read the step of every model that took one."""
        for k, seed in enumerate(self.seeds):
            if lots[k] is not None:
                sums, released, before, after = (_model(each, k) for each in tensors)
                probed.read(Reading(seed, step, sums, released, before, after, rates[k]))

    def _affordable(self, share: float) -> int:
        """Return the largest micro-batch whose per-example gradients fit, for the whole stack."""
        largest, total = self.program.numbers(self.x[:1])
        size = self.x.element_size() * len(self.seeds)
        place = "cuda" if self.device.type == "cuda" else "cpu"
        fitting = min(LARGEST_BYTES[place] * share / (largest * size), TOTAL_BYTES[place] * share / (total * size))
        return max(1, int(fitting))

    def _micro_batch(self, longest: int) -> int:
        """Return the capacity of each micro-batch: as few as fit, and all of one size, since every size is recorded."""
        assert self._largest_lot is not None
        rounded = self._rounded(longest)
        parts = -(-rounded // self._largest_lot)
        return -(-rounded // parts)

    def _rounded(self, longest: int) -> int:
        """Round a capacity up, so that Poisson lots come in a few sizes; padding is at most an eighth of a lot."""
        share = self.job.recipe.lots.batch_size // (8 if self.compiled else 16)
        grain = 1 << max(2, share.bit_length() - 1)
        return max(1, -(-longest // grain)) * grain

    def _common_capacities(self, steps: Sequence[Sequence[IntArray | None]]) -> frozenset[int]:
        """Return the sizes that are worth compiling for: the two most common ones, unless they are rare."""
        longest = [max((len(lot) for lot in now if lot is not None), default=0) for now in steps]
        size = self._micro_batch if self.program.rule else self._rounded
        counted = Counter(size(value) for value in longest)
        return frozenset(value for value, count in counted.most_common(2) if count >= 0.1 * len(steps))

    def _compile_for(self, capacity: int) -> bool:
        return self.compiled and (capacity in self._common or not self._common)

    def _views(self, lots: Sequence[IntArray | None], step: tuple[int, int]) -> list[IntArray | None]:
        augmentation = self.job.recipe.augmentation
        return [
            None if lot is None or not augmentation else augmentation.draw(len(lot), seed=seed, step=step)
            for lot, seed in zip(lots, self.seeds, strict=True)
        ]

    def _refuse_divergence(self) -> None:
        finite = torch.stack([value.flatten(1).isfinite().all(1) for value in self.parameters.values()]).all(0)
        some = self.x[:64]
        weights = self.parameters | self.buffers
        with torch.no_grad():  # weights can be finite and so large that no answer is
            each = [{name: value[k] for name, value in weights.items()} for k in range(len(self.seeds))]
            logits = torch.stack([functional_call(self.module, one, (some,)) for one in each])
        finite &= logits.isfinite().all(-1).any(1)  # a single record may be broken by itself
        if not bool(finite.all()):
            count, recipe = int((~finite).sum()), self.job.recipe
            raise TrainingError(
                f"{count} of {len(self.seeds)} models diverged to weights or logits that are not finite at rate "
                f"{recipe.learning_rate}; lower the learning rate"
            )


def _keep(active: Tensor, new: Tensors, old: Tensors) -> Tensors:
    return {name: torch.where(along(active, value), value, old[name]) for name, value in new.items()}


def _right(module: nn.Module, weights: Tensors, x: Tensor, y: Tensor) -> Tensor:
    """Return which records a model gets right, (n,) bool."""
    with torch.no_grad():
        said = [functional_call(module, weights, (part,)).argmax(1) for part in torch.split(x, 4096)]
    return torch.cat(said) == y if len(x) else torch.zeros(0, dtype=torch.bool)


def _model(stacked: Tensors, k: int) -> Tensors:
    return {name: value[k] for name, value in stacked.items()}
