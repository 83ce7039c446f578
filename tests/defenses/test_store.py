"""What is kept is found again, and nothing else is ever taken for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from defenses.architectures import Architecture
from defenses.ensemble import Ensemble
from defenses.errors import CheckpointError
from defenses.recipe import Recipe, Schedule
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.store import ModelStore
from defenses.training import Job
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
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    again = ModelStore(tmp_path)
    found = again.train(job(), INCLUDED, [1, 2, 3], device="cpu", width=1)
    assert (again.trained, again.loaded) == (1, 2)
    assert all(torch.equal(value, found.parameters[name]) for name, value in whole.parameters.items())


def test_a_damaged_file_is_trained_again(tmp_path: Path) -> None:
    ModelStore(tmp_path).train(job(), INCLUDED[:1], [1], device="cpu")
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="train again"):
        Ensemble.load(path)
    store = ModelStore(tmp_path)
    store.train(job(), INCLUDED[:1], [1], device="cpu")
    assert store.trained == 1
    assert len(Ensemble.load(path)) == 1


def test_the_folder_is_private(tmp_path: Path) -> None:
    ModelStore(tmp_path / "models").train(job(), INCLUDED[:1], [1], device="cpu")
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o700
