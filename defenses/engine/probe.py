"""What an auditor may attach to a run: gradients that join the sum before the noise, and a look at what comes out.

The scheme does not know of it. A canary's gradient is weighed by the scheme's own rule, by its norm, as if a record of
the lot had it: a scheme that does not clip lets it through whole, and one that adds too little noise shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from defenses.engine.layers import PerExample
from defenses.gradients import GradientRule, MovingThreshold
from defenses.records import BoolArray
from defenses.updates import Tensors

Step = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """One step of one model, as far as the strongest adversary can see it or work it out.

    Attributes:
        seed: The model's seed.
        step: (epoch, position in the epoch).
        sums: name -> (*shape), the weighted sum over the lot without noise and without canaries.
        released: name -> (*shape), what the scheme released for the lot and the canaries together.
        before: name -> (*shape), the parameters before the step.
        after: name -> (*shape), the parameters after it.
        rate: The learning rate of the step.
        threshold: The clipping threshold in force, where the rule moves it; None where it never changes.
    """

    seed: int
    step: Step
    sums: Tensors
    released: Tensors
    before: Tensors
    after: Tensors
    rate: float
    threshold: float | None = None


class Probe(Protocol):
    """Adds m canaries to every step of a run and reads what is released. Models are told apart by their seeds."""

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Return the gradients of all m canaries, by parameter; asked for once per stack.

        Args:
            parameters: name -> (*shape) of one model, for names, shapes, type and device.
        """
        ...

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return which canaries (m,) are in this step's lot of this model."""
        ...

    def read(self, reading: Reading) -> None:
        """Take note of a step. Where memory runs out a run starts again, and so do its readings."""
        ...


@runtime_checkable
class StretchingProbe(Probe, Protocol):
    """A probe whose canaries become longer or shorter with a threshold that moves."""

    def stretch(self, threshold: float) -> float:
        """Return what the canaries' gradients are multiplied by in a step with this threshold in force."""
        ...


class Probed:
    """The canaries of a probe as one model's rule sees them.

    Args:
        probe: Who adds and reads.
        rule: The scheme's rule.
        parameters: name -> (*shape) of one model.
    """

    def __init__(self, probe: Probe, rule: GradientRule, parameters: Tensors) -> None:
        self._probe, self._rule = probe, rule
        self._canaries = probe.canaries(parameters)
        self._groups = dict(zip(parameters, rule.groups(list(parameters)), strict=True))
        powers: list[Tensor | None] = [None] * (max(self._groups.values()) + 1)
        for name, group in self._groups.items():
            power, before = self._canaries[name].power(rule.order), powers[group]
            powers[group] = power if before is None else before + power
        stacked = torch.stack([power for power in powers if power is not None], dim=-1)
        self._norms = stacked.sqrt() if rule.order == 2 else stacked
        self._in_force: dict[int, float] = {}

    def added(self, sums: Tensors, statistics: Tensor, state: Tensors, seed: int, step: Step) -> tuple[Tensors, Tensor]:
        """Return sums and statistics with the canaries of this step, weighed by the rule."""
        stretch = 1.0
        if isinstance(self._rule, MovingThreshold):
            self._in_force[seed] = float(self._rule.threshold(state))  # `release` may move it
            if isinstance(self._probe, StretchingProbe):
                stretch = self._probe.stretch(self._in_force[seed])
        mask = torch.from_numpy(self._probe.present(seed, step)).to(self._norms.device)
        labels = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        weights, counted = self._rule.factors(stretch * self._norms, labels, mask, state)
        weights = stretch * weights
        together = {
            name: value + self._canaries[name].weighted(weights[:, self._groups[name]]) for name, value in sums.items()
        }
        return together, statistics + counted.sum(0)

    def read(self, reading: Reading) -> None:
        """Hand a step to the probe, with the threshold that was in force."""
        self._probe.read(replace(reading, threshold=self._in_force.get(reading.seed)))
