"""The workbench of the checks: calls the code under test and measures how far its model moved."""

import functools
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auditor.debug_dp.claim import Claim
from auditor.debug_dp.crafted import HUGE, SMALL, joined, linear, natural
from auditor.debug_dp.implementation import Implementation, StepSettings, UserCodeError, copied
from defenses.progress import OnProgress, silent

# Exact up to rounding and the trace of noise that is left in a quiet call.
TOLERANCE = 0.01


@dataclass(frozen=True)
class ModelDelta:
    """What one call did to a model.

    Attributes:
        parameters: Change of each parameter over the learning rate, float64.
        buffers: Each buffer afterwards (running statistics and the like).
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    @property
    def flat(self) -> Tensor:
        """All changes as one vector."""
        return torch.cat([value.reshape(-1) for value in self.parameters.values()])

    @property
    def norm(self) -> float:
        """Length of that vector."""
        return float(self.flat.norm())


class Harness:
    """Calls the code under test; every check measures through it.

    The auditor's own draws come from `rng` alone and it never seeds torch: what seeding there is, is the code's own.

    Args:
        implementation: The code under test.
        claim: What its runs are priced as.
        rng: The auditor's randomness.
        error: Probability with which one check's bound may be above the truth, in (0, 1).
        deadline: On `time.monotonic`; repeated runs stop in time for it.
        runs: The most runs on each side of a repeated audit.
        on_progress: Called while runs are repeated.
    """

    def __init__(
        self,
        implementation: Implementation,
        claim: Claim,
        *,
        rng: np.random.Generator,
        error: float,
        deadline: float,
        runs: int,
        on_progress: OnProgress = silent,
    ) -> None:
        self.implementation, self.claim, self.rng = implementation, claim, rng
        self.error, self.deadline, self.runs, self.on_progress = error, deadline, runs, on_progress

    @property
    def confidence(self) -> float:
        """Confidence of one check's bound, so that all hold together."""
        return 1 - self.error

    @property
    def seconds_left(self) -> float:
        """Time until the budget is used up."""
        return self.deadline - time.monotonic()

    def moved(self, model: nn.Module, x: Tensor, y: Tensor, dials: StepSettings) -> ModelDelta:
        """Call the code on a copy of the model and measure what moved.

        A step is called once with all records, or in a loop over Poisson lots if there is more to do; a training does
        its own loop.

        Raises:
            UserCodeError: If the code raises, loses parameters, or leaves numbers that are not finite.
        """
        changed = copied(model)
        if self.implementation.trains:
            after = self.implementation.train(changed, x.clone(), y.clone(), dials)
        else:
            self._loop(changed, x, y, dials)
            after = changed.state_dict()
        parameters = {}
        for name, before in model.named_parameters():
            if not isinstance(after.get(name), Tensor) or after[name].shape != before.shape:
                raise UserCodeError(
                    f"{self.implementation.name} left no tensor {name!r} of shape {tuple(before.shape)}; "
                    "it must train the model that it is given, or return a state dict with the same names"
                )
            change = (after[name].detach().double() - before.detach().double()) / dials.learning_rate
            if not torch.isfinite(change).all():
                raise UserCodeError(f"{self.implementation.name} left NaN or infinity in {name!r}")
            parameters[name] = change
        buffers = {
            name: after[name].detach().double()
            for name, _ in model.named_buffers()
            if isinstance(after.get(name), Tensor)
        }
        return ModelDelta(parameters, buffers)

    def _loop(self, model: nn.Module, x: Tensor, y: Tensor, dials: StepSettings) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=dials.learning_rate)
        for _ in range(dials.steps):
            lot = torch.ones(len(x), dtype=torch.bool)
            if dials.sampling_probability < 1:
                lot = torch.from_numpy(self.rng.random(len(x)) < dials.sampling_probability)
            self.implementation.step(model, optimizer, x[lot], y[lot], dials)

    @functools.cached_property
    def unit(self) -> float:
        """How far one clipped record moves a model, over max_grad_norm / expected_batch_size; 1 if all is as agreed.

        Code that divides by another public constant is as private if its noise is divided alike. Its unit is taken as
        it is found if the contribution of a clipped record is the same for every size, clipping norm and company, and
        the noise keeps up with it; otherwise 1, and the checks say what differs.
        """
        inputs = 64
        found = []
        try:
            for norm in (0.5, 3.0):
                for size in (HUGE, 10 * HUGE):
                    x, y = torch.zeros(7, inputs), torch.zeros(7, dtype=torch.long)
                    record = torch.zeros(inputs)
                    record[int(self.rng.integers(inputs))] = size
                    dials = StepSettings(max_grad_norm=norm)
                    for lot in ((record[None], torch.zeros(1, dtype=torch.long)), joined(x, y, record, 0)):
                        found.append(self.moved(linear(inputs), *lot, dials).norm * dials.expected_batch_size / norm)
            unit = float(np.median(found))
            if unit == 0 or max(found) - min(found) > TOLERANCE * unit or abs(unit - 1) <= TOLERANCE:
                return 1.0
            noisy = StepSettings(max_grad_norm=3.0, noise_multiplier=1.0)
            x, y = natural(8, 1024, rng=self.rng, scale=SMALL)
            noise = self.moved(linear(1024), x, y, noisy).flat - self.moved(linear(1024), x, y, noisy.quiet()).flat
        except UserCodeError:
            return 1.0  # the checks that make these calls on purpose will say what broke
        spread = float(noise.square().mean().sqrt()) * noisy.expected_batch_size / noisy.max_grad_norm
        return unit if spread >= 0.9 * unit else 1.0

    def contribution(self, dials: StepSettings) -> float:
        """Return how far one clipped record may move a model in one step of unit learning rate."""
        return self.unit * dials.max_grad_norm / dials.expected_batch_size

    def noise(self, model: nn.Module, x: Tensor, y: Tensor, dials: StepSettings) -> dict[str, Tensor]:
        """Return the noise of one call: what moved less what moves without noise."""
        quiet = self.moved(model, x, y, dials.quiet())
        noisy = self.moved(model, x, y, dials)
        return {name: value - quiet.parameters[name] for name, value in noisy.parameters.items()}
