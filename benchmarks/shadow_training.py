"""Seconds to train shadow models, against the ways in which others train them.

Every shadow model sees the members that its own coins chose, about half of the pool, in lots of 64, with SGD and
momentum, for the same epochs, in float32. The cases:

- ours: `ModelStore.train` into an empty folder, everything from choosing a layout (stack width, processes, compiling;
  by measuring, each time anew) to the finished ensemble, with every model written to disk.
- loop: a plain PyTorch loop that trains one model after the other and indexes tensors in memory, the least that anyone
  has to do.
- DataLoader: the same loop with `DataLoader(TensorDataset(...), batch_size=64, shuffle=True)`, as public tools do.
- ART: `ShadowModels` of the Adversarial Robustness Toolbox around its `PyTorchClassifier`. It calls `fit` without
  epochs and lot size, which then are 10 and 128, so a subclass fills in ours; it would also predict the whole pool
  with every model, which the subclass answers with zeros, so that only training is timed. It takes exactly half of the
  pool.
- Opacus loop (with `--private` only, against ours at epsilon 2): the loop with `GradSampleModule` in hooks mode and
  `DPOptimizer`, on Poisson lots drawn as the engine draws them, with the engine's noise multiplier.

The baselines train one model at a time, so their cost is proportional to the number of models: they are measured on
`measured_models` of them and scaled.
"""

import functools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Settings, Style, finisher, interleave, note, ratios, scaled, spread, table, try_out
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.layout import Layout
from defenses.engine.store import ModelStore
from defenses.errors import DataError
from defenses.recipe import Recipe
from defenses.records import BoolArray, Image, Records
from defenses.sampling import Lots, poisson_lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense
from defenses.updates import SGD

NAME = "shadow_training"
NETS = {
    "MLP 784-128-10": Architecture("mlp", {"hidden": [128]}),
    "CNN of Tramer and Boneh": Architecture("cnn"),
}
LEARNING_RATE, MOMENTUM, EPSILON, SEED = 0.01, 0.9, 2.0, 11


@dataclass(frozen=True)
class Work:
    """What all cases have in common."""

    job: Job
    included: BoolArray
    device: str

    @property
    def seeds(self) -> list[int]:
        return list(range(1, len(self.included) + 1))

    def first(self, models: int) -> "Work":
        """Return the same work for the first models only."""
        return Work(self.job, self.included[:models], self.device)

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The pool on the device."""
        records = self.job.records
        return torch.from_numpy(records.x).to(self.device), torch.from_numpy(records.y).to(self.device)

    def model(self, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return a fresh model and its optimizer."""
        recipe = self.job.recipe
        model = recipe.architecture.build(self.job.records.shape, self.job.records.classes, seed=seed).to(self.device)
        return model, torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=MOMENTUM)


def pool(size: int) -> Records:
    """Return Fashion-MNIST where AUDITOR_DATA has it, else random images; they cost the same."""
    if os.environ.get("AUDITOR_DATA"):
        from auditor.datasets import load

        try:
            records = load("fashion_mnist", download=False)
        except DataError as error:
            note(f"random images are used: {error}")
        else:
            return records.take(np.random.default_rng(SEED).choice(len(records), size, replace=False))
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(size, 1, 28, 28)).astype(np.float32)
    return Records(x, rng.integers(0, 10, size), 10, Image(), name="random images")


def make_work(
    architecture: Architecture, records: Records, *, models: int, epochs: int, private: bool, device: str = "cpu"
) -> Work:
    recipe = Recipe(
        architecture=architecture,
        lots=Lots(len(records) // 2, min(64, len(records) // 2), epochs),
        learning_rate=LEARNING_RATE,
        optimizer=SGD(momentum=MOMENTUM),
    )
    included = np.random.default_rng(SEED + 1).random((models, len(records))) < 0.5
    return Work(Job(recipe, DPSGD(epsilon=EPSILON) if private else NoDefense(), records), included, device)


def ours(work: Work, width: int | None = None, layouts: list[Layout] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(folder)
        store.train(work.job, work.included, work.seeds, device=work.device, width=width)
        if layouts is not None:
            layouts.append(store.layout(work.job, len(work.seeds), torch.device(work.device), width=width))


def loop(work: Work) -> None:
    x, y = work.tensors
    lots = work.job.recipe.lots

    def batches(members: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for lot in members[torch.randperm(len(members), device=members.device)].split(lots.batch_size):
            yield x[lot], y[lot]

    for seed, included in zip(work.seeds, work.included, strict=True):
        members = torch.from_numpy(np.flatnonzero(included)).to(work.device)
        _fit(work, seed, functools.partial(batches, members))


def data_loader(work: Work) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.from_numpy(work.job.records.x), torch.from_numpy(work.job.records.y)
    for seed, included in zip(work.seeds, work.included, strict=True):
        members = torch.from_numpy(included)
        dataset = TensorDataset(x[members], y[members])
        loader = DataLoader(dataset, batch_size=work.job.recipe.lots.batch_size, shuffle=True)

        def batches(loader: DataLoader = loader) -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in loader:
                yield inputs.to(work.device), labels.to(work.device)

        _fit(work, seed, batches)


def _fit(work: Work, seed: int, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
    model, optimizer = work.model(seed)
    criterion = nn.CrossEntropyLoss()
    for _ in range(work.job.recipe.lots.epochs):
        for x, y in batches():
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()


def art(work: Work) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.inference.membership_inference.shadow_models import ShadowModels
        from art.estimators.classification import PyTorchClassifier

    records, lots = work.job.records, work.job.recipe.lots

    class Classifier(PyTorchClassifier):
        def fit(self, x: Any, y: Any, **_: Any) -> None:
            super().fit(x, y, batch_size=lots.batch_size, nb_epochs=lots.epochs)

        def predict(self, x: Any, **_: Any) -> Any:
            return np.zeros((len(x), records.classes), dtype=np.float32)

    model, optimizer = work.model(work.seeds[0])
    template = Classifier(
        model,
        nn.CrossEntropyLoss(),
        records.shape,
        records.classes,
        optimizer=optimizer,
        device_type="cpu" if work.device == "cpu" else "gpu",
    )
    shadows = ShadowModels(template, num_shadow_models=len(work.included), random_state=SEED)
    shadows.generate_shadow_dataset(records.x, records.y, member_ratio=0.5)


def opacus_loop(work: Work) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

    (x, y), defense, lots = work.tensors, work.job.defense, work.job.recipe.lots
    assert isinstance(defense, DPSGD)
    criterion = nn.CrossEntropyLoss()
    for seed, included in zip(work.seeds, work.included, strict=True):
        inner, plain = work.model(seed)
        model = GradSampleModule(inner)
        optimizer = DPOptimizer(
            plain,
            noise_multiplier=defense.noise(lots),
            max_grad_norm=defense.max_grad_norm,
            expected_batch_size=lots.batch_size,
        )
        for epoch in range(lots.epochs):
            for drawn in poisson_lots(lots, included, seed=seed, epoch=epoch):
                lot = torch.from_numpy(drawn).to(work.device)
                optimizer.zero_grad(set_to_none=True)
                criterion(model(x[lot]), y[lot]).backward()
                optimizer.step()


def run(settings: Settings) -> dict[str, Any]:
    rounds = settings.rounds(full=3, quick=1)
    counts = sorted(settings.models or ((2, 4) if settings.quick else (16, 64)))
    epochs = 1 if settings.quick else 10
    records = pool(1_000 if settings.quick else 10_000)
    baseline = min(settings.baseline_models, counts[-1], 2 if settings.quick else counts[-1])
    rows = []
    for private in (False, True) if settings.private else (False,):
        for title, architecture in NETS.items():
            work = make_work(
                architecture, records, models=counts[-1], epochs=epochs, private=private, device=settings.device
            )
            rows += _rows(title, work, counts, baseline, rounds, settings)
    return {
        "settings": {
            "rounds": rounds,
            "quick": settings.quick,
            "records": records.name,
            "pool": len(records),
            "members_per_model": "half of the pool, by coins",
            "batch_size": 64,
            "epochs": epochs,
            "width": settings.width,
            "epsilon_of_dp_sgd": EPSILON,
        },
        "unit": "seconds; baselines are measured on measured_models and scaled to models",
        "rows": rows,
    }


def _rows(
    title: str, work: Work, counts: list[int], baseline: int, rounds: int, settings: Settings
) -> list[dict[str, Any]]:
    private = isinstance(work.job.defense, DPSGD)
    others = {"Opacus loop": opacus_loop} if private else {"loop": loop, "DataLoader": data_loader, "ART": art}
    layouts: dict[int, list[Layout]] = {k: [] for k in counts}
    cases: dict[str, Case] = {
        f"ours {k}": functools.partial(ours, work.first(k), settings.width, layouts[k]) for k in counts
    }
    finish = finisher(settings.device)
    tried, failures = try_out({name: functools.partial(other, work.first(1)) for name, other in others.items()})
    cases |= {name: functools.partial(others[name], work.first(baseline)) for name in tried}
    times = interleave(cases, rounds, warm_up=False, finish=finish)
    label = "ours"
    rows = []
    for k in counts:
        here = {label: times[f"ours {k}"], **scaled({n: times[n] for n in tried}, dict.fromkeys(tried, k / baseline))}
        over_ours = ratios(here, label)
        for name in (label, *others):
            rows.append(
                {
                    "network": title,
                    "scheme": work.job.defense.name,
                    "models": k,
                    "case": name,
                    "measured_models": k if name == label else baseline,
                    "seconds": spread(here[name]) if name in here else None,
                    "seconds_per_model": spread(here[name])["median"] / k if name in here else None,
                    "layouts": [asdict(layout) for layout in layouts[k]] if name == label else None,
                    "over_ours": over_ours.get(name),
                    "failure": failures.get(name),
                }
            )
    return rows


def show(result: dict[str, Any], style: Style) -> str:
    columns = {
        "network": "network",
        "scheme": "scheme",
        "models": "models",
        "case": "case",
        "measured": "measured_models",
        "seconds (quartiles)": lambda row: row["seconds"] or f"fails: {row['failure']}",
        "s per model": "seconds_per_model",
        "over ours": "over_ours",
    }
    return table(result["rows"], columns, style)
