"""What is kept is found again, and nothing else is ever taken for it."""

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

import defenses
from defenses.architectures import Architecture
from defenses.authentication import Authenticator
from defenses.engine import code_digest
from defenses.engine.executors import InProcess
from defenses.engine.layout import Layout
from defenses.engine.store import ModelStore, model_of
from defenses.engine.training import Job, train
from defenses.errors import CheckpointError, PlanError, TrainingError
from defenses.progress import Progress
from defenses.recipe import Recipe, Schedule
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import SGD, Adam


def job() -> Job:
    rng = np.random.default_rng(0)
    records = Records(rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 2, 40), 2, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=Lots(20, 5, 1), optimizer=SGD(0.5))
    return Job(recipe, DPSGD(noise_multiplier=1.0), records)


INCLUDED = np.random.default_rng(1).random((3, 40)) < 0.5


def test_an_identical_request_trains_nothing(tmp_path: Path) -> None:
    first = ModelStore(tmp_path / "models")
    once = first.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=2)
    second = ModelStore(tmp_path / "models")
    again = second.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=2)
    assert (first.trained, second.trained, second.loaded) == (3, 0, 3)
    for name, value in once.parameters.items():
        assert torch.equal(value, again.parameters[name])


def changed(work: Job, **recipe: object) -> Job:
    return replace(work, recipe=replace(work.recipe, **recipe))  # type: ignore[arg-type]


CHANGES = {
    "sigma": lambda work: replace(work, defense=DPSGD(noise_multiplier=1.01)),
    "clip": lambda work: replace(work, defense=DPSGD(noise_multiplier=1.0, max_grad_norm=0.9)),
    "architecture": lambda work: changed(work, architecture=Architecture("mlp", {"hidden": [5]})),
    "epochs": lambda work: changed(work, lots=Lots(20, 5, 2)),
    "batch": lambda work: changed(work, lots=Lots(20, 4, 1)),
    "nominal size": lambda work: changed(work, lots=Lots(21, 5, 1)),
    "momentum": lambda work: changed(work, optimizer=SGD(0.6)),
    "optimizer": lambda work: changed(work, optimizer=Adam()),
    "schedule": lambda work: changed(work, schedule=Schedule.COSINE),
    "learning rate": lambda work: changed(work, learning_rate=0.11),
    "data": lambda work: replace(work, records=replace(work.records, x=work.records.x + 1)),
    "labels": lambda work: replace(work, records=replace(work.records, y=1 - work.records.y)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_trains_again(what: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.train(job(), INCLUDED[:1], [1], device="cpu")
    store.train(CHANGES[what](job()), INCLUDED[:1], [1], device="cpu")
    assert store.trained == 2


def test_other_members_and_other_seeds_train_again(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.train(job(), INCLUDED[:1], [1], device="cpu")
    store.train(job(), INCLUDED[1:2], [1], device="cpu")
    store.train(job(), INCLUDED[:1], [2], device="cpu")
    assert (store.trained, store.loaded) == (3, 0)


def test_only_what_is_missing_is_trained(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    whole = store.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1)
    sorted(tmp_path.glob("*.model"))[1].unlink()
    again = ModelStore(tmp_path)
    found = again.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1)
    assert (again.trained, again.loaded) == (1, 2)
    assert all(torch.equal(value, found.parameters[name]) for name, value in whole.parameters.items())


def test_a_damaged_file_is_trained_again(tmp_path: Path) -> None:
    ModelStore(tmp_path).train(job(), INCLUDED[:1], [1], device="cpu")
    path = next(tmp_path.glob("*.model"))
    path.write_bytes(path.read_bytes()[:50])
    store = ModelStore(tmp_path)
    store.train(job(), INCLUDED[:1], [1], device="cpu")
    assert store.trained == 1
    again = ModelStore(tmp_path)
    again.train(job(), INCLUDED[:1], [1], device="cpu")
    assert again.loaded == 1


def test_the_folder_is_private(tmp_path: Path) -> None:
    ModelStore(tmp_path / "models").train(job(), INCLUDED[:1], [1], device="cpu")
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o700


def test_progress_is_told_inside_and_after_every_stack(tmp_path: Path) -> None:
    told: list[Progress] = []
    ModelStore(tmp_path).train(job(), INCLUDED[:1], [1], device="cpu", width=1)
    ModelStore(tmp_path).train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1, on_progress=told.append)
    assert (told[0].done, told[0].total, told[0].detail) == (1, 3, "1 of 3 models done")
    assert (told[-1].done, told[-1].total) == (3, 3)
    assert re.fullmatch(r"3 of 3 models done, [\d,]+ examples/s", told[-1].detail)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    long = changed(job(), lots=Lots(20, 5, 4))
    told.clear()
    ModelStore(tmp_path).train(long, INCLUDED, [1, 2, 3], device="cpu", width=2, on_progress=told.append)
    assert any(0 < progress.done < 2 for progress in told)
    assert any(2 < progress.done < 3 for progress in told)


@dataclass
class Watched:
    """Runs tasks from the last to the first, and remembers how many it was given."""

    before: Callable[[], None] = lambda: None
    counts: list[int] = field(default_factory=list)

    def run(
        self, function: Callable[..., Any], tasks: Sequence[Any], *, on_progress: Callable[[int, Progress], None]
    ) -> Generator[tuple[int, Any], None, None]:
        self.counts.append(len(tasks))
        self.before()
        for index, result in InProcess().run(function, tasks[::-1], on_progress=lambda index, progress: None):
            yield len(tasks) - 1 - index, result


def test_an_executor_is_given_the_missing_stacks_only_and_order_is_kept(tmp_path: Path) -> None:
    whole = ModelStore(tmp_path / "plain").train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1)
    watched = Watched()
    ModelStore(tmp_path / "some").train(job(), INCLUDED[1:2], [2], device="cpu", width=1)
    store = ModelStore(tmp_path / "some", executor=watched)
    found = store.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1)
    assert watched.counts == [2]
    assert (store.trained, store.loaded) == (2, 1)
    assert all(torch.equal(value, found.parameters[name]) for name, value in whole.parameters.items())


def test_a_stack_that_is_asked_for_twice_is_trained_once(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    found = store.train(job(), INCLUDED[[0, 0]], [1, 1], device="cpu", width=1)
    assert (len(found), store.trained, store.loaded) == (2, 1, 1)


def test_an_object_store_keeps_models() -> None:
    url = "memory://test-store/models"
    store = ModelStore(url)
    once = store.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=2)
    again = ModelStore(url)
    found = again.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=2)
    assert (store.trained, again.trained, again.loaded) == (3, 0, 3)
    assert all(torch.equal(value, found.parameters[name]) for name, value in once.parameters.items())
    memory = fsspec.filesystem("memory")
    name = memory.ls("/test-store/models", detail=False)[0]
    memory.pipe_file(name, memory.cat_file(name)[:50])  # damaged: as good as none
    after = ModelStore(url)
    after.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=2)
    assert after.trained in (1, 2)  # the stack that the damaged model is of


def test_a_place_without_a_driver_is_refused_before_training() -> None:
    with pytest.raises(PlanError, match=r"nowhere://models.*fsspec has a driver"):
        ModelStore("nowhere://models").train(job(), INCLUDED[:1], [1], device="cpu")


def test_a_place_that_workers_do_not_share_is_named(tmp_path: Path) -> None:
    @dataclass
    class Elsewhere(Watched):
        def run(self, function: Any, tasks: Any, *, on_progress: Any) -> Generator[tuple[int, Any], None, None]:
            for result in super().run(function, tasks, on_progress=on_progress):
                for path in tmp_path.glob("*.model"):
                    path.unlink()
                yield result

    with pytest.raises(TrainingError, match="a folder that all machines share, or an object store"):
        ModelStore(tmp_path, executor=Elsewhere()).train(job(), INCLUDED[:1], [1], device="cpu")


def test_a_worker_with_other_code_trains_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def upgrade() -> None:
        monkeypatch.setattr("defenses.engine.store.digest_of_training", lambda architecture, scheme: "of tomorrow")

    with pytest.raises(TrainingError, match="same versions everywhere"):
        ModelStore(tmp_path, executor=Watched(upgrade)).train(job(), INCLUDED[:1], [1], device="cpu")
    assert not list(tmp_path.rglob("*.model"))


def test_a_worker_without_the_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forget(architecture: str, scheme: str) -> str:
        raise ModuleNotFoundError("No module named 'networks'")

    watched = Watched(lambda: monkeypatch.setattr("defenses.engine.store.digest_of_training", forget))
    with pytest.raises(TrainingError, match=r"No module named 'networks'.*install it there"):
        ModelStore(tmp_path, executor=watched).train(job(), INCLUDED[:1], [1], device="cpu")


@pytest.mark.parametrize("url", [False, True], ids=["folder", "object store"])
def test_a_layout_is_measured_once_and_kept(url: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "memory://test-store/layouts" if url else tmp_path
    measured = []

    def choose(job: Job, models: int, device: torch.device) -> Layout:
        measured.append(models)
        return Layout(width=2, workers=1, threads=1, compiled=False)

    monkeypatch.setattr("defenses.engine.store.choose_layout", choose)
    watched = Watched()
    first = ModelStore(place, executor=watched)
    first.train(job(), INCLUDED, [1, 2, 3], device="cpu")
    again = ModelStore(place, executor=watched)
    again.train(job(), INCLUDED, [1, 2, 3], device="cpu")
    assert measured == [3]
    assert watched.counts == [2, 0]  # stacks of two and one, and nothing is missing the second time
    assert again.layout(job(), 3, torch.device("cpu")) == Layout(2, 1, 1, False)
    assert again.layout(job(), 3, torch.device("cpu"), width=7).width == 7
    with pytest.raises(ValueError, match="width is 0"):
        again.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=0)


def test_a_model_that_somebody_else_put_there_is_trained_again(tmp_path: Path) -> None:
    one, other = (Authenticator(bytes([number] * 32)) for number in (1, 2))
    ModelStore(tmp_path, authenticator=one).train(job(), INCLUDED[:1], [1], device="cpu")
    store = ModelStore(tmp_path, authenticator=other)
    store.train(job(), INCLUDED[:1], [1], device="cpu")
    assert (store.trained, store.loaded) == (1, 0)


def test_a_layout_that_somebody_else_put_there_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr(
        "defenses.engine.store.choose_layout", lambda *given: measured.append(1) or Layout(1, 1, 1, False)
    )
    for key in (1, 1, 2):
        store = ModelStore(tmp_path, authenticator=Authenticator(bytes([key] * 32)))
        store.layout(job(), 1, torch.device("cpu"))
    assert len(measured) == 2


def test_kept_bytes_never_say_what_is_imported_or_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that names code is compared with the caller's own network and refused; nothing is looked up by it."""

    def imported(name: str) -> object:
        raise AssertionError(f"{name} was imported")

    work = job()
    trained = train(work, INCLUDED[:1], [1], device="cpu")
    honest = trained.to_bytes()
    monkeypatch.setattr("defenses.architectures.importlib.import_module", imported)
    for name, options in (
        ("subprocess:Popen", {"args": ["true"]}),
        ("cnn", {}),
        ("fronted", {"network": ["os:_exit", {}]}),
    ):
        forged = replace(trained, architecture=Architecture(name, options, allow_code=True)).to_bytes()
        with pytest.raises(CheckpointError, match="another network"):
            model_of(work, forged)
    with pytest.raises(CheckpointError, match="another network"):
        model_of(work, replace(trained, classes=3).to_bytes())
    front = replace(trained.architecture, front={"components": ["os:_exit"], "bound": None})
    with pytest.raises(CheckpointError, match="preprocessing"):
        model_of(work, replace(trained, architecture=front).to_bytes())
    for cut in (0, 4, 9, 100, len(honest) - 1):
        with pytest.raises(CheckpointError):
            model_of(work, honest[:cut])
    assert torch.equal(model_of(work, honest).one(0)(torch.ones(1, 5)), trained.one(0)(torch.ones(1, 5)))


def test_a_factory_of_the_users_own_needs_a_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for use in (
        lambda: Architecture("own_network:factory").build((2,), 2, seed=0),
        lambda: Architecture("own_network:factory").module,
        lambda: Architecture("own_network:factory", front={"components": None, "bound": None}).build((2,), 2, seed=0),
        lambda: ModelStore(tmp_path / "m").train(
            changed(job(), architecture=Architecture("own_network:factory")), INCLUDED[:1], [1], device="cpu"
        ),
    ):
        with pytest.raises(PlanError, match="--allow-code"):
            use()
    assert not (tmp_path / "ran").exists()


def test_the_digest_of_training_covers_the_whole_package(monkeypatch: pytest.MonkeyPatch) -> None:
    covered: list[Path] = []
    monkeypatch.setattr(code_digest, "digest_of_folders", lambda *folders: covered.extend(folders) or "")
    code_digest.digest_of_training.__wrapped__()
    assert covered == [Path(defenses.__path__[0])]
