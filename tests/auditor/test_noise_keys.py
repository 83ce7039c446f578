"""No two releases share their noise: whatever changes what is released draws it anew, and nothing else does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.context import Replicate, RunContext
from auditor.plan.plan import Plan, parse_plan
from auditor.targets.trained_here import content_of_training, trained_subject
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.engine.layout import Layout
from defenses.engine.store import ModelStore, _keys
from defenses.engine.training import Job
from defenses.recipe import Recipe, Schedule
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import SGD, Adam

NOISE = 50.0
PLAN = f"""
title = "noise"

[data]
source = "records.npz"
pool = 60
population = 0

[model]
architecture = "mlp"
options = {{ hidden = [4] }}

[training]
epochs = 2
batch_size = 10
learning_rate = 1.0

[scheme]
name = "dp_sgd"
noise_multiplier = {NOISE}

[control]
enabled = false
"""


def write(path: Path, *, change: bool = False) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 5)).astype(np.float32), rng.integers(0, 2, 60)
    if change:
        x[0] = 1 - x[0]
    np.savez(path, x=x, y=y)


@dataclass
class Release:
    """The first release of a plan about a small file, and the means to make others."""

    folder: Path

    def weights(self, plan: str = PLAN, **context: object) -> torch.Tensor:
        parsed = parse_plan(plan)
        subject = trained_subject(parsed, self.context(**context))
        return torch.cat([value.flatten() for value in subject.target.model.state_dict().values()])

    def context(self, **changes: object) -> RunContext:
        place = Workspace(self.folder / "work")
        return replace(RunContext(place, plan_folder=self.folder, device="cpu"), **changes)  # type: ignore[arg-type]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    write(tmp_path / "records.npz")
    return Release(tmp_path)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm())


def test_one_record_changed_under_the_same_name_draws_all_noise_anew(release: Release) -> None:
    """The same plan about new data: the difference of two releases holds the noise of both, or it tells the record."""
    first = release.weights()
    of_noise = distance(first, release.weights(draw=Replicate("another run")))
    write(release.folder / "records.npz", change=True)
    second = release.weights()
    assert distance(first, second) > 0.5 * of_noise
    write(release.folder / "records.npz")
    assert torch.equal(release.weights(), first)  # resuming still finds what it made


@pytest.mark.parametrize(
    "change",
    [
        ("noise_multiplier = 50.0", "noise_multiplier = 50.001"),
        ("epochs = 2", "epochs = 3"),
        ("hidden = [4]", "hidden = [5]"),
        ("batch_size = 10", "batch_size = 11"),
        ("pool = 60", "pool = 59"),
    ],
    ids=lambda change: change[1],
)
def test_another_plan_of_the_training_has_another_root(change: tuple[str, str], release: Release) -> None:
    assert root(release, PLAN) != root(release, PLAN.replace(*change))


def root(release: Release, text: str) -> int | None:
    plan = parse_plan(text)
    return trained_subject(plan, release.context()).root


def test_what_only_judges_does_not_draw_anew(release: Release) -> None:
    limits = '\n[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n[[attacks]]\nname = "loss_threshold"\n'
    assert root(release, PLAN) == root(release, PLAN.replace('"noise"', '"another title"') + limits)


def test_a_new_torch_and_new_code_draw_anew(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    before = root(release, PLAN)
    monkeypatch.setattr("defenses.engine.store.digest_of_training", lambda *given: "new code")
    code = root(release, PLAN)
    monkeypatch.undo()
    monkeypatch.setattr("defenses.engine.store.torch.__version__", "99.0")
    assert len({before, code, root(release, PLAN)}) == 3


def test_a_seed_in_the_plan_is_taken_as_it_is(release: Release) -> None:
    assert root(release, "seed = 7\n" + PLAN) == 7


def job() -> Job:
    rng = np.random.default_rng(0)
    records = Records(rng.random((40, 5)).astype(np.float32), rng.integers(0, 2, 40), 2, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=Lots(20, 5, 1), optimizer=SGD(0.5))
    return Job(recipe, DPSGD(noise_multiplier=1.0), records)


def recipe(**changes: object) -> Callable[[Job], Job]:
    return lambda work: replace(work, recipe=replace(work.recipe, **changes))  # type: ignore[arg-type]


def one_record(work: Job) -> Job:
    x = work.records.x.copy()
    x[3, 2] += 1e-3
    return replace(work, records=replace(work.records, x=x))


CHANGES: dict[str, Callable[[Job], Job]] = {
    "nothing": lambda work: replace(work),
    "a permission": recipe(architecture=Architecture("mlp", {"hidden": [4]}, allow_code=True)),
    "one record": one_record,
    "labels": lambda work: replace(work, records=replace(work.records, y=1 - work.records.y)),
    "order": lambda work: replace(work, records=work.records.take(np.arange(40)[::-1])),
    "public records": lambda work: replace(work, public=work.records),  # which this scheme does not use
    "network": recipe(architecture=Architecture("mlp", {"hidden": [5]})),
    "epochs": recipe(lots=Lots(20, 5, 2)),
    "batch": recipe(lots=Lots(20, 4, 1)),
    "optimizer": recipe(optimizer=Adam()),
    "momentum": recipe(optimizer=SGD(0.6)),
    "schedule": recipe(schedule=Schedule.COSINE),
    "learning rate": recipe(learning_rate=0.11),
    "noise": lambda work: replace(work, defense=DPSGD(noise_multiplier=1.01)),
    "clipping": lambda work: replace(work, defense=DPSGD(noise_multiplier=1.0, max_grad_norm=0.9)),
}
DRAWS = {
    "one": None,
    "named": Replicate("final 8.0"),
    "of two": Replicate("walk", 2),
    "the other": Replicate("walk", 2, 1),
}


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_secret_root_follows_the_key_of_the_model(
    draw: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs have one secret root exactly if the store would take the model of one for that of the other."""
    monkeypatch.setattr("defenses.engine.store.choose_layout", lambda *given: Layout(width, 1, 1, compiled=False))
    context = RunContext(Workspace(tmp_path), device="cpu", draw=DRAWS[draw])
    plan, store, count = parse_plan(PLAN), ModelStore(tmp_path / "models"), 1 if DRAWS[draw] is None else 2
    included, seeds = np.ones((count, 40), dtype=np.bool_), list(range(count))

    def names(work: Job) -> tuple[tuple[str, ...], int]:
        return _keys(work, included[:width], seeds[:width], "cpu"), context.root(
            plan.seed, _content(work, store, context)
        )

    key, secret = names(job())
    for name, change in CHANGES.items():
        other_key, other_secret = names(change(job()))
        assert (other_key == key) == (other_secret == secret), name
    assert names(CHANGES["one record"](job()))[1] != secret
    assert names(CHANGES["nothing"](job()))[1] == secret


def _content(work: Job, store: ModelStore, context: RunContext) -> str:
    return content_of_training(work, store, context)


def test_the_stack_that_a_model_is_trained_in_is_part_of_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another width changes the last bits of the weights, and a difference of last bits has no noise of its own."""
    plan: Plan = parse_plan(PLAN)
    context = RunContext(Workspace(tmp_path), device="cpu", draw=Replicate("walk", 2))
    roots = []
    for width in (1, 2, 8):
        monkeypatch.setattr("defenses.engine.store.choose_layout", lambda *given, wide=width: Layout(wide, 1, 1, False))
        store = ModelStore(tmp_path / f"models-{width}")
        roots.append(context.root(plan.seed, _content(job(), store, context)))
    assert len(set(roots)) == 2
    assert roots[1] == roots[2]  # there are two models, so a wider stack is the same stack
