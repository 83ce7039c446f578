"""One DP-SGD step (clip every example, sum, add noise, update) against Opacus and against a step without privacy.

What is timed, on one fixed batch that lies in memory, without a data loader:

- plain: zero_grad, forward, backward, step of `torch.optim.SGD`.
- Opacus: the same calls on the wrapped module, for each of its `grad_sample_mode`s. Module and optimizer are wrapped
  directly, which spares Opacus its data loader and its accountant's hook. `ghost` has a second row that takes the norms
  from materialised gradients (`use_ghost_clipping=False`, "fast gradient clipping"), because either can be the faster.
  Left out are `no_op`, which computes no gradients, and the modes for several processes (`ghost_fsdp`, `ghost_tp`).
- ours: the step of the training engine with one model. It also pays for taking the lot out of the pool, and for noise
  from streams named by (seed, step, parameter); Opacus draws from torch's global generator.

All of them start from the same weights in float32, in one process with the same threads and with the allocator setting
that `train` makes for whole runs (freed memory is kept), and take turns. What is paid once (tracing, compiling, the
first allocation) is paid before the clock starts. Plain and ours have a second row each, with the forward and backward
pass and the engine's step compiled, as the engine does for runs of half a minute and more; Opacus runs as its
documentation has it, which is without. `--eager` leaves the compiled rows out.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Settings, Style, finisher, interleave, ratios, scaled, spread, table, try_out
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.memory import freed_memory_is_kept
from defenses.engine.model_stack import ModelStack
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import SGD

NAME = "dp_sgd_step"
OPACUS = ("hooks", "functorch", "ew", "ghost", "ghost, norms from gradients")
SHAPE, CLASSES, SEED = (1, 28, 28), 10, 7


@dataclass(frozen=True)
class Net:
    title: str
    architecture: Architecture
    batch_size: int
    inner: int


NETS = (
    Net("MLP 784-128-10", Architecture("mlp", {"hidden": [128]}), 256, 10),
    Net("CNN of Tramer and Boneh", Architecture("cnn"), 256, 5),
    Net("CNN of the MNIST example", Architecture("benchmarks.networks:mnist_cnn", allow_code=True), 64, 2),
)


@dataclass(frozen=True)
class Problem:
    """One network, one batch, and the numbers that every case uses."""

    architecture: Architecture
    batch_size: int
    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    learning_rate: float = 0.01
    device: str = "cpu"

    @functools.cached_property
    def records(self) -> Records:
        """Random images and labels: four lots of them, so that a lot has to be looked up."""
        rng = np.random.default_rng(SEED)
        n = 4 * self.batch_size
        x = rng.normal(size=(n, *SHAPE)).astype(np.float32)
        return Records(x, rng.integers(0, CLASSES, n), CLASSES, Image(), name="random images")

    @functools.cached_property
    def lot(self) -> np.ndarray:
        """Which records make up the batch."""
        return np.sort(np.random.default_rng(SEED + 1).choice(len(self.records), self.batch_size, replace=False))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the batch on the device."""
        part = self.records.take(self.lot)
        return torch.from_numpy(part.x).to(self.device), torch.from_numpy(part.y).to(self.device)

    def model(self) -> nn.Module:
        """Return a fresh copy of the network, always with the same weights."""
        return self.architecture.build(SHAPE, CLASSES, seed=SEED).to(self.device)


@dataclass(frozen=True)
class Trial:
    """A step that can be taken again and again, and the weights that it has led to."""

    step: Callable[[], None]
    weights: Callable[[], list[Tensor]]


def plain(problem: Problem, *, compiled: bool = False) -> Trial:
    """PyTorch as everyone writes it: no privacy."""
    model, (x, y), criterion = problem.model(), problem.batch(), nn.CrossEntropyLoss()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)

    def step() -> None:
        optimizer.zero_grad()
        criterion(forward(x), y).backward()
        optimizer.step()

    return Trial(step, lambda: [value.detach() for value in model.parameters()])


def opacus(problem: Problem, mode: str) -> Trial:
    """Opacus in one of its modes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.grad_sample.utils import prepare_module
        from opacus.optimizers import get_optimizer_class
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    mode, _, variant = mode.partition(",")
    inner, (x, y) = problem.model(), problem.batch()
    options: dict[str, Any] = {}
    if mode == "ghost":
        options = {"max_grad_norm": problem.max_grad_norm, "use_ghost_clipping": not variant}
    model = prepare_module(inner, mode, **options)
    optimizer = get_optimizer_class("flat", False, mode)(
        torch.optim.SGD(inner.parameters(), lr=problem.learning_rate),
        noise_multiplier=problem.noise_multiplier,
        max_grad_norm=problem.max_grad_norm,
        expected_batch_size=problem.batch_size,
    )
    criterion: Any = nn.CrossEntropyLoss()
    if mode == "ghost":
        criterion = DPLossFastGradientClipping(model, optimizer, criterion)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)  # torch's default, and cheaper than the zeros that Opacus would write
        criterion(model(x), y).backward()
        optimizer.step()

    return Trial(step, lambda: [value.detach() for value in inner.parameters()])


def ours(problem: Problem, **options: Any) -> Trial:
    """The training engine with one model."""
    recipe = Recipe(
        architecture=problem.architecture,
        lots=Lots(len(problem.records), problem.batch_size, 1),
        learning_rate=problem.learning_rate,
        optimizer=SGD(),
    )
    defense = DPSGD(noise_multiplier=problem.noise_multiplier, max_grad_norm=problem.max_grad_norm)
    everyone = np.ones((1, len(problem.records)), dtype=bool)
    job, device = Job(recipe, defense, problem.records), torch.device(problem.device)
    stack = ModelStack(job, everyone, [SEED], device, **options)
    position = 0

    def step() -> None:
        nonlocal position
        stack.step([problem.lot], [0.0], (0, position))
        position += 1

    return Trial(step, lambda: [value[0].detach() for value in stack.parameters.values()])


def builders(*, compiled: bool = False) -> dict[str, Callable[[Problem], Trial]]:
    """Return every case by name."""
    modes = {f"Opacus {mode}": functools.partial(opacus, mode=mode) for mode in OPACUS}
    cases = {"plain": plain, **modes, "ours": ours}
    if compiled:
        cases |= {f"{name}, compiled": functools.partial(cases[name], compiled=True) for name in ("plain", "ours")}
    return cases


def run(settings: Settings) -> dict[str, Any]:
    rounds = settings.rounds(full=20, quick=3)
    with freed_memory_is_kept():
        rows = [row for net in NETS for row in _rows(net, settings, rounds)]
    return {
        "settings": {"rounds": rounds, "quick": settings.quick, "noise_multiplier": 1.0, "max_grad_norm": 1.0},
        "unit": "milliseconds per step",
        "rows": rows,
    }


def _rows(net: Net, settings: Settings, rounds: int) -> list[dict[str, Any]]:
    batch_size = net.batch_size // 8 if settings.quick else net.batch_size
    problem = Problem(net.architecture, batch_size, device=settings.device)
    trials: dict[str, Trial] = {}

    def first(name: str, build: Callable[[Problem], Trial]) -> None:
        trials[name] = build(problem)
        trials[name].step()

    built = builders(compiled=settings.compiled)
    _, failures = try_out({name: functools.partial(first, name, build) for name, build in built.items()})
    cases = {name: trial.step for name, trial in trials.items() if name not in failures}
    times = interleave(cases, rounds, 1 if settings.quick else net.inner, finish=finisher(settings.device))
    times = scaled(times, dict.fromkeys(times, 1000.0))
    medians = {name: spread(values)["median"] for name, values in times.items()}
    best = min((name for name in times if name.startswith("Opacus")), key=lambda name: medians[name], default=None)
    to_plain = ratios(times, "plain") if "plain" in times else {}
    to_best = ratios(times, best) if best else {}
    return [
        {
            "network": net.title,
            "parameters": sum(value.numel() for value in problem.model().parameters()),
            "batch_size": batch_size,
            "case": name,
            "best_of_opacus": name == best,
            "milliseconds": spread(times[name]) if name in times else None,
            "over_plain": to_plain.get(name),
            "over_best_opacus": to_best.get(name),
            "failure": failures.get(name),
        }
        for name in built
    ]


def show(result: dict[str, Any], style: Style) -> str:
    columns = {
        "network": "network",
        "batch": "batch_size",
        "step": "case",
        "ms (quartiles)": lambda row: row["milliseconds"] or f"fails: {row['failure']}",
        "over plain": "over_plain",
        "over Opacus' best": "over_best_opacus",
    }
    return table(result["rows"], columns, style)
