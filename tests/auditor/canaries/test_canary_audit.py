"""The audit of a training on planted data: a leaky one is caught, a blind one is not, and a wrong seal is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from auditor.canaries.planting import plant
from auditor.canaries.request import find_kind
from auditor.canaries.sealed_coins import SealedCoins
from auditor.cli.main import app
from auditor.context import RunContext
from auditor.plan.plan import load_plan, parse_plan
from auditor.plan.sections import Source
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.ensemble import module_logits
from defenses.errors import DataError, PlanError
from defenses.records import Inclusion
from reports.pages.toml_text import toml_text

ROOT = Path(__file__).parents[3]
PLAN = (
    'title = "c"\nshadows = 4\n[model]\narchitecture = "mlp"\noptions = { hidden = [64] }\n'
    '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n[claim]\nepsilon = 0.3\ndelta = 1e-5\n'
    '[checkpoint]\npath = "model.safetensors"\ncanaries = "coins.sealed"\n'
)
TRAINING = "[training]\nepochs = 20\nbatch_size = 32\nlearning_rate = 0.1\nmomentum = 0.9\n"


def auditor(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def fit(x: np.ndarray, y: np.ndarray, path: Path, *, hidden: int = 64) -> None:
    """Train a network with plain PyTorch until it remembers."""
    module = Architecture("mlp", {"hidden": [hidden]}).build(x.shape[1:], 10, seed=3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    features, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(features), labels).backward()
        optimizer.step()
    save_file(module.state_dict(), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with 300 canaries of noise, a model trained on them, and one that has seen other noise."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("planted", "other"):
        plant(
            Source(source="digits"),
            kind=find_kind("random_noise"),
            canaries=300,
            out=folder / name,
            secret=folder / ("coins.sealed" if name == "planted" else "other.sealed"),
        )
    for name, path in (("planted", "model"), ("other", "blind")):
        with np.load(folder / name / "digits.npz") as arrays:
            fit(arrays["x"], arrays["y"], folder / f"{path}.safetensors")
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


def test_a_leaky_training_contradicts_its_claim(folder: Path) -> None:
    found = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert found.exit_code == 1, found.output
    assert found.stdout.startswith("VIOLATED: ")
    told, sealed = report(folder / "one"), SealedCoins.read(folder / "coins.sealed")
    assert told["epsilons"]["shown"]["lower"] > 1.5
    assert told["epsilons"]["shown"]["canaries"] == 300
    assert told["subject"]["members"] == sealed.included.sum()
    assert told["subject"]["inclusion"] == Inclusion.INDEPENDENT.value
    assert sealed.commitment in told["provenance"]["seed_commitment"]
    assert told["provenance"]["settings"]["canaries"]["kind"] == "random_noise"
    assert any("planted canaries" in said for said in told["blind_spots"])
    again = parse_plan(toml_text(told["provenance"]["plan"]))  # the report says how to repeat it
    assert again.digest == told["provenance"]["plan_digest"]
    text = (folder / "one" / "report.json").read_text() + (folder / "one" / "report.html").read_text()
    assert sealed.salt not in text
    assert str(folder) not in text


def test_a_model_that_never_saw_the_canaries_contradicts_nothing(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.replace("model.safetensors", "blind.safetensors"))
    found = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert found.exit_code in (0, 3), found.output
    assert report(folder / "one")["epsilons"]["shown"]["lower"] < 0.3


def test_shadow_models_train_on_the_data_beside_the_canaries(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN + 'data = "planted"\n' + TRAINING)
    plan = load_plan(folder / "plan.toml")
    subject = plan.target.build(plan, RunContext(Workspace(folder / "work"), device="cpu"))
    target, shadows = subject.target, subject.target.shadows
    assert shadows is not None
    assert len(target.candidates) == 300
    assert shadows.job.recipe.lots.expected_members == 1797 + 150
    models, coins = shadows.models(2), shadows.included(2)
    assert coins.shape == (2, 300)
    with np.load(folder / "planted" / "digits.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    canary = set(target.candidates.row_digests())
    beside = [digest not in canary for digest in replace(target.candidates, x=x, y=y).row_digests()]
    assert sum(beside) == 1797
    for model, row in zip(models, coins, strict=True):
        right = module_logits(model, x, device="cpu").argmax(1) == y
        assert right[beside].mean() > 0.9  # without the data beside, digits are not learnt
        own = module_logits(model, target.candidates.x, device="cpu").argmax(1) == target.candidates.y
        assert own[row].mean() > own[~row].mean() + 0.2
    assert len(subject.control[0].included) == 300


def test_the_data_may_be_named_by_its_file_and_in_another_order(folder: Path) -> None:
    with np.load(folder / "planted" / "digits.npz") as arrays:
        order = np.random.default_rng(0).permutation(len(arrays["y"]))
        np.savez(folder / "shuffled.npz", x=arrays["x"][order], y=arrays["y"][order])
    (folder / "plan.toml").write_text(PLAN + 'data = "shuffled.npz"\n')
    assert auditor("audit", "plan.toml", "--out", "one", "--quiet").exit_code == 1


def reseal(path: Path, sealed: SealedCoins) -> None:
    with path.open("wb") as file:  # keeps its mode
        sealed.write(file)


def spoil_file(seal: Path, what: str) -> None:
    """Make a mistake with the sealed file itself, if it is one of these."""
    if what == "open to all":
        seal.chmod(0o644)
    elif what == "no seal":
        seal.unlink()
    elif what == "no such format":
        seal.write_bytes(b"PK\x03\x04nothing")
    elif what == "a coin turned":
        with np.load(seal) as file:
            arrays = dict(file)
        arrays["coins"][0] ^= 1
        with seal.open("wb") as file:
            np.savez(file, **arrays)


def spoil(folder: Path, what: str) -> str:
    """Make one mistake; return the plan to run."""
    seal = folder / "coins.sealed"
    sealed = SealedCoins.read(seal)
    spoil_file(seal, what)
    if what == "all members":
        reseal(seal, replace(sealed, included=np.ones(300, np.bool_)))
    elif what == "unfair coins":
        reseal(seal, replace(sealed, included=np.arange(300) < 260))
    elif what == "other data":
        return PLAN.replace("coins.sealed", "other.sealed") + 'data = "planted"\n'
    elif what == "data changed":
        with np.load(folder / "planted" / "digits.npz") as arrays:
            np.savez(folder / "planted" / "digits.npz", x=arrays["x"][1:], y=arrays["y"][1:])
        return PLAN + 'data = "planted"\n'
    elif what == "sealed anew":
        reseal(seal, replace(sealed, included=~sealed.included))
        return PLAN + f'commitment = "{sealed.commitment}"\n'
    elif what == "sealed anew beside the public file":
        reseal(seal, replace(sealed, included=~sealed.included))
        return PLAN + 'data = "planted"\n'
    elif what == "other shape":
        small = replace(sealed.candidates, x=sealed.candidates.x[:, :, :7])
        reseal(seal, replace(sealed, candidates=small))
    elif what == "other classes":
        reseal(seal, replace(sealed, candidates=replace(sealed.candidates, classes=12)))
    elif what == "population of canaries":
        chosen = sealed.candidates.take(np.arange(20))
        np.savez(folder / "outside.npz", x=chosen.x, y=chosen.y)
        return PLAN + '[checkpoint.population]\nsource = "outside.npz"\n'
    return PLAN


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("open to all", "chmod 600"),
        ("no seal", "cannot be read: No such file"),
        ("no such format", "not a sealed file"),
        ("a coin turned", "changed since it was sealed"),
        ("all members", "300 of 300"),
        ("unfair coins", "which fair coins do not do"),
        ("other data", "sealed file of other data"),
        ("data changed", "changed since"),
        ("sealed anew", "made anew"),
        ("sealed anew beside the public file", "made anew"),
        ("other shape", "belongs to this model's data"),
        ("other classes", "12 classes"),
        ("population of canaries", "20 of 20"),
    ],
)
def test_what_cannot_be_trusted_is_refused(folder: Path, what: str, words: str) -> None:
    (folder / "plan.toml").write_text(spoil(folder, what))
    found = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert found.exit_code == 2, found.output
    assert words in found.stderr
    assert "Traceback" not in found.output
    assert not (folder / "one").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "planted.json is a FIFO"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "thousands of digits"),
        ("[]", "holds no commitment"),
        ('{"commitment": 1}', "holds no commitment"),
        ('{"commitment": "\\u001b[2J"}', r"'\x1b[2J', and the sealed file"),
    ],
)
def test_what_is_said_in_public_is_read_with_care(folder: Path, content: str | None, words: str) -> None:
    public = folder / "planted" / "planted.json"
    public.unlink()
    if content is None:
        os.mkfifo(public)
    else:
        public.write_text(content)
    (folder / "plan.toml").write_text(PLAN + 'data = "planted"\n')
    found = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert found.exit_code == 2, found.output
    assert words in found.stderr
    again = auditor("plant", "digits", "--out", "planted", "--secret", "coins.sealed", "--canaries", "60", "--quiet")
    assert "coins.sealed is there already" in again.stderr


def test_planted_data_that_the_sealed_file_cannot_describe_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "plan.toml").write_text(PLAN + 'data = "empty"\n')
    found = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert found.exit_code == 2, found.output
    assert "cannot be read as the sealed file says" in found.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAN + TRAINING, "needs data under .checkpoint."),
        (PLAN + 'members = { source = "a" }', "leave out members"),
        (PLAN + 'inclusion = "fixed"', "leave out inclusion"),
        (PLAN + 'commitment = "abc"', "checkpoint.commitment"),
        (PLAN.replace('canaries = "coins.sealed"\n', ""), "give members and nonmembers, or canaries"),
        (
            PLAN.replace("canaries =", 'nonmembers = { source = "b" }\nmembers = { source = "a" }\ndata ='),
            "no canaries",
        ),
        (PLAN.replace("canaries =", "canary ="), "did you mean 'canaries'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        parse_plan(text)


def test_a_sealed_file_is_read_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "s").touch(0o600)
    with (tmp_path / "s").open("wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object), coins=np.zeros(3), x=0, y=0)
    with pytest.raises(DataError, match="pickled objects"):
        SealedCoins.read(tmp_path / "s")


@pytest.mark.slow
def test_the_documented_commands_run_as_printed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "canaries.md").read_text(), re.DOTALL)[0]
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, arguments in (("python", ""), ("auditor", "-c 'from auditor.cli.main import main; main()'")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    codes = []
    for command in block.splitlines():
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        codes.append(done.returncode)
    assert codes == [0, 0, 1], done.stderr
    shown = report(tmp_path / "audit-canaries")["epsilons"]["shown"]
    assert shown["lower"] > 2
