"""The main job from the command line: a leaky target, a checkpoint, mistakes, and a run that is killed."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from auditor.cli.main import app
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.authentication import HEAD_SIZE

MODEL = '[model]\narchitecture = "mlp"\noptions = { hidden = [32] }\n'
TRAINING = "[training]\nepochs = 40\nbatch_size = 20\nlearning_rate = 0.05\nmomentum = 0.9\n"
LIMIT = '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n'
PLAN = (
    'title = "t"\nseed = 1\nshadows = 8\n[data]\nsource = "pool.npz"\nclasses = 4\nvalue_range = [-6.0, 6.0]\n'
    "rescale = false\npool = 260\npopulation = 100\n" + MODEL + TRAINING + LIMIT
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with records whose labels are random, so that a model can only remember them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(360, 20)).astype(np.float32).clip(-6, 6)
    np.savez(tmp_path / "pool.npz", x=x, y=rng.integers(0, 4, 360))
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def auditor(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def without_timing(folder: Path) -> dict[str, Any]:
    found = report(folder)
    del found["timing"]
    return found


def test_a_leaky_target_is_found_and_the_same_run_again_trains_nothing(folder: Path) -> None:
    first = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert first.exit_code == 1, first.output
    assert first.stdout.startswith("LEAKS: ")
    assert "9 models trained" in first.stderr
    assert {path.name for path in (folder / "one").iterdir()} == {
        "report.json", "report.html", "summary.md", "scores.npz",
    }  # fmt: skip
    again = auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert "0 models trained, 9 found" in again.stderr
    assert without_timing(folder / "one") == without_timing(folder / "two")
    assert (folder / "one" / "scores.npz").read_bytes() == (folder / "two" / "scores.npz").read_bytes()
    assert auditor("render", "one/report.json", "--out", "three").exit_code == 0
    assert (folder / "three" / "report.html").read_bytes() == (folder / "one" / "report.html").read_bytes()


def test_scores_stay_with_their_owner_and_records_out_of_the_report(folder: Path) -> None:
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert (folder / "one" / "scores.npz").stat().st_mode & 0o777 == 0o600
    scores = arrays(folder / "one" / "scores.npz")
    found = report(folder / "one")
    assert scores["included"].sum() == found["subject"]["members"]
    order = np.argsort(-scores["scores_lira"])
    assert scores["included"][order][:40].mean() > 0.85
    (folder / "plan.toml").write_text(PLAN.replace('"pool.npz"', f'"{folder}/pool.npz"'))
    auditor("audit", "plan.toml", "--out", "two", "--quiet")
    shutil.copy(folder / "two" / "report.json", folder / "one" / "second.json")
    text = (folder / "one" / "second.json").read_text() + (folder / "two" / "report.html").read_text()
    text += (folder / "one" / "report.json").read_text() + (folder / "one" / "report.html").read_text()
    key = Workspace(folder / ".auditor").record_key()
    for secret in (key.hex(), str(int.from_bytes(key)), str(folder), os.uname().nodename):
        assert secret not in text


def test_without_a_seed_the_coins_are_secret_and_committed_to(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.replace("seed = 1\n", ""))
    auditor("audit", "plan.toml", "--out", "one", "--work-dir", "here", "--quiet")
    auditor("audit", "plan.toml", "--out", "two", "--work-dir", "there", "--quiet")
    one, two = report(folder / "one"), report(folder / "two")
    assert one["subject"]["model_digest"] != two["subject"]["model_digest"]
    assert one["provenance"]["seed_commitment"] != two["provenance"]["seed_commitment"]
    seed = next((folder / "here" / "secrets").glob("seed-*"))
    assert seed.stat().st_mode & 0o077 == 0
    secret = seed.read_bytes()[-32:]
    for form in (secret.hex(), str(int.from_bytes(secret))):
        assert form not in (folder / "one" / "report.json").read_text()


def test_an_audit_that_is_stopped_has_been_an_attempt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an owner could stop each run that looks bad, and report the first that does not."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))

    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("auditor.audit.measure", stopped)
        assert auditor("audit", "plan.toml", "--out", "one", "--quiet").exit_code == 130
    (folder / "plan.toml").write_text(PLAN.replace("seed = 1\n", "seed = 2\n"))
    auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert report(folder / "two")["provenance"]["attempt"] == 2


def test_judging_again_by_other_limits_does_not_draw_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))  # a list of attempts of its own
    plan = folder / "plan.toml"
    plan.write_text(PLAN.replace("seed = 1\n", ""))
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    plan.write_text(PLAN.replace("seed = 1\n", "").replace("maximum = 0.6", "maximum = 0.7").replace('"t"', '"u"'))
    again = auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert "0 models trained" in again.stderr
    one, two = report(folder / "one"), report(folder / "two")
    assert one["subject"]["model_digest"] == two["subject"]["model_digest"]
    assert (one["provenance"]["attempt"], two["provenance"]["attempt"]) == (1, 1)
    assert [attack["measures"]["auc"]["value"] for attack in one["attacks"]] == [
        attack["measures"]["auc"]["value"] for attack in two["attacks"]
    ]


def test_a_limit_may_name_any_rate_and_an_attack_that_then_must_run(folder: Path) -> None:
    limits = '[[limits]]\nmeasure = "tpr_at_fpr_0.05"\nmaximum = 0.3\n'
    (folder / "plan.toml").write_text(PLAN.replace(LIMIT, limits))
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    assert {finding["measure"] for finding in report(folder / "one")["findings"]} == {"tpr_at_fpr_0.05"}
    named = LIMIT.replace("0.6", "0.999") + 'attack = "rmia"\n'
    (folder / "plan.toml").write_text(PLAN.replace(LIMIT, named).replace("population = 100\n", ""))
    found = auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert found.exit_code == 4, found.output
    assert found.stdout.startswith("ERROR: RMIA could not be run")


def test_groups_are_in_together_and_count_once(folder: Path) -> None:
    pool = arrays(folder / "pool.npz")
    np.savez(folder / "pool.npz", x=pool["x"], y=pool["y"], owner=np.arange(360) // 4)
    (folder / "plan.toml").write_text(
        PLAN.replace("pool = 260", "pool = 200").replace("population = 100", "population = 4")
    )
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    found = report(folder / "one")
    auc = found["attacks"][0]["measures"]["auc"]
    assert auc["unit"] == "group of records"
    assert auc["n"] < 100
    assert found["epsilons"]["shown"]["unit"] == "user"


def test_an_audit_that_fails_leaves_no_earlier_report_behind(folder: Path) -> None:
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    (folder / "plan.toml").write_text(PLAN.replace("pool.npz", "gone.npz"))
    assert auditor("audit", "plan.toml", "--out", "one", "--quiet").exit_code == 2
    assert not list((folder / "one").iterdir())


def test_an_error_has_its_exit_code_with_its_traceback(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.replace("pool.npz", "gone.npz"))
    found = auditor("audit", "plan.toml", "--debug", "--quiet")
    assert found.exit_code == 2


def test_a_folder_that_cannot_be_written_is_known_before_training(folder: Path) -> None:
    (folder / "taken").write_text("a file")
    for out in ("taken", "taken/x"):
        found = auditor("audit", "plan.toml", "--out", out, "--quiet")
        assert found.exit_code == 2, found.output
        assert "taken" in found.stderr
    assert not (folder / ".auditor").exists()


def test_a_network_of_ones_own_is_checked_before_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import torch", "def good(shape, classes): return torch.nn.Linear(20, classes)"]
    lines += ["def narrow(shape, classes): return torch.nn.Linear(20, 3)", "def nothing(shape, classes): return None"]
    (folder / "own_networks.py").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, code, words in (
        ("own_networks:good", 1, ""),
        ("own_networks:narrow", 2, "(2, 4)"),
        ("own_networks:nothing", 2, "NoneType"),
        ("own_networks:absent", 2, "cannot be imported"),
        ("nowhere_at_all:x", 2, "cannot be imported"),
    ):
        (folder / "plan.toml").write_text(PLAN.replace(MODEL, f'[model]\narchitecture = "{name}"\n'))
        found = auditor("audit", "plan.toml", "--out", "one", "--allow-code", "--quiet")
        assert (found.exit_code in (1, 3)) if code == 1 else (found.exit_code == 2), found.output
        assert words in found.stderr


def test_a_device_that_is_not_there(folder: Path) -> None:
    found = auditor("audit", "plan.toml", "--device", "cuda:77", "--quiet")
    assert found.exit_code == 2
    assert "cuda:77" in found.stderr


def test_attempts_with_other_seeds_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))  # a list of attempts of its own
    for number, seed in enumerate((1, 2, 1), start=1):
        (folder / "plan.toml").write_text(PLAN.replace("seed = 1\n", f"seed = {seed}\n"))
        auditor("audit", "plan.toml", "--out", f"run{number}", "--quiet")
    attempts = [report(folder / f"run{number}")["provenance"]["attempt"] for number in (1, 2, 3)]
    assert attempts == [1, 2, 1]


CHECKPOINT = (
    'title = "c"\nshadows = 4\n'
    + MODEL
    + LIMIT
    + '[checkpoint]\npath = "model.safetensors"\nclasses = 4\n'
    + "".join(
        f'[checkpoint.{side}]\nsource = "{side}.npz"\nclasses = 4\nvalue_range = [-6.0, 6.0]\nrescale = false\n'
        for side in ("members", "nonmembers")
    )
)


@pytest.fixture
def checkpoint(folder: Path) -> Path:
    """A network trained elsewhere, with plain PyTorch, on the first 160 records."""
    pool = arrays(folder / "pool.npz")
    module = Architecture("mlp", {"hidden": [32]}).build((20,), 4, seed=3)
    x, y = torch.from_numpy(pool["x"][:160]), torch.from_numpy(pool["y"][:160])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    save_file(module.state_dict(), folder / "model.safetensors")
    torch.save(module.state_dict(), folder / "model.pt")
    np.savez(folder / "members.npz", x=pool["x"][:160], y=pool["y"][:160])
    np.savez(folder / "nonmembers.npz", x=pool["x"][160:320], y=pool["y"][160:320])
    (folder / "checkpoint.toml").write_text(CHECKPOINT)
    return folder


def test_a_checkpoint_without_its_recipe_gets_the_attacks_that_need_none(checkpoint: Path) -> None:
    found = auditor("audit", "checkpoint.toml", "--out", "one", "--quiet")
    assert found.exit_code == 1, found.output
    attacks = {attack["name"]: attack for attack in report(checkpoint / "one")["attacks"]}
    assert attacks["loss_threshold"]["status"] == "ran"
    assert attacks["loss_threshold"]["measures"]["auc"]["value"] > 0.8
    assert attacks["lira"]["status"] == "not_applicable"
    assert "training recipe" in attacks["lira"]["reason"]
    assert "0 models trained" in found.stderr


def test_a_checkpoint_with_its_recipe_gets_shadow_models(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.toml").write_text(CHECKPOINT.replace('"model.safetensors"', '"model.pt"') + TRAINING)
    found = auditor("audit", "checkpoint.toml", "--out", "one", "--quiet")
    assert "4 models trained" in found.stderr
    attacks = {attack["name"]: attack for attack in report(checkpoint / "one")["attacks"]}
    assert attacks["lira"]["measures"]["auc"]["value"] > 0.8
    assert attacks["rmia"]["status"] == "not_applicable"  # there is no population


def test_a_claim_is_refuted_only_where_coins_decided(checkpoint: Path) -> None:
    claim = "[claim]\nepsilon = 0.1\ndelta = 1e-5\n"
    plan = checkpoint / "checkpoint.toml"
    plan.write_text(CHECKPOINT + claim)
    auditor("audit", "checkpoint.toml", "--out", "fixed", "--quiet")
    assert report(checkpoint / "fixed")["epsilons"]["shown"] is None
    assert "coins" in report(checkpoint / "fixed")["epsilons"]["shown_reason"]
    plan.write_text(CHECKPOINT.replace("classes = 4\n[", 'classes = 4\ninclusion = "independent_coins"\n[', 1) + claim)
    found = auditor("audit", "checkpoint.toml", "--out", "coins", "--quiet")
    assert found.stdout.startswith("VIOLATED: "), found.output
    assert found.exit_code == 1


def spoil(checkpoint: Path, what: str) -> str:
    """Make one mistake; return the plan to run."""
    pool = arrays(checkpoint / "pool.npz")
    if what == "nan weights":
        weights = Architecture("mlp", {"hidden": [32]}).build((20,), 4, seed=3).state_dict()
        weights["1.bias"][0] = float("nan")
        save_file(weights, checkpoint / "model.safetensors")
    elif what == "other architecture":
        return CHECKPOINT.replace("[32]", "[33]")
    elif what == "in both":
        np.savez(checkpoint / "nonmembers.npz", x=pool["x"][150:320], y=pool["y"][150:320])
    elif what == "label out of range":
        np.savez(checkpoint / "members.npz", x=pool["x"][:160], y=pool["y"][:160] + 1)
    elif what == "other shape":
        np.savez(checkpoint / "nonmembers.npz", x=pool["x"][160:320, :19], y=pool["y"][160:320])
    elif what == "pickle":
        torch.save(Architecture("mlp").build((20,), 4, seed=3), checkpoint / "whole.pt")
        return CHECKPOINT.replace("model.safetensors", "whole.pt")
    elif what == "no file":
        return CHECKPOINT.replace("members.npz", "nowhere.npz", 1)
    elif what == "population of members":
        return CHECKPOINT + CHECKPOINT[CHECKPOINT.index("[checkpoint.members]") :].split("[checkpoint.non")[0].replace(
            "checkpoint.members", "checkpoint.population"
        )
    elif what == "unfair coins":
        np.savez(checkpoint / "nonmembers.npz", x=pool["x"][160:200], y=pool["y"][160:200])
        return CHECKPOINT.replace("classes = 4\n[", 'classes = 4\ninclusion = "independent_coins"\n[', 1)
    elif what == "code":
        return CHECKPOINT.replace('"mlp"', '"antigravity:open"').replace("options = { hidden = [32] }\n", "")
    return CHECKPOINT


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nan weights", "1.bias"),
        ("other architecture", "33"),
        ("in both", "10"),
        ("label out of range", "label 4"),
        ("other shape", "19"),
        ("pickle", "state_dict"),
        ("no file", "nowhere"),
        ("population of members", "160 of 160"),
        ("unfair coins", "160 of 200"),
        ("code", "--allow-code"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(checkpoint: Path, what: str, words: str) -> None:
    (checkpoint / "checkpoint.toml").write_text(spoil(checkpoint, what))
    found = auditor("audit", "checkpoint.toml", "--out", "one", "--quiet")
    assert found.exit_code == 2, found.output
    assert words in found.stderr
    assert "Traceback" not in found.output
    assert not (checkpoint / "one").exists()


def test_a_plan_that_is_not_there(folder: Path) -> None:
    found = auditor("audit", "nowhere.toml")
    assert found.exit_code == 2
    assert "nowhere.toml" in found.stderr


def start(folder: Path, work: str, out: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", "from auditor.cli.main import main; main()"]
    return subprocess.Popen(
        [*command, "audit", "plan.toml", "--out", out, "--work-dir", work],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_killed_run_resumes_and_ends_with_the_same_report(folder: Path) -> None:
    # Enough shadows in stacks of eight that a kill lands between two stacks.
    (folder / "plan.toml").write_text(PLAN.replace("shadows = 8", "shadows = 24"))
    whole = start(folder, "whole", "whole-report")
    whole.communicate(timeout=300)
    assert whole.returncode == 1
    broken = start(folder, "broken", "broken-report")
    models = folder / "broken" / "models"
    deadline = time.monotonic() + 300
    while len(list(models.glob("*.model"))) < 9 and time.monotonic() < deadline:
        assert broken.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    done = len(list(models.glob("*.model")))
    assert 9 <= done < 25
    assert not (folder / "broken-report").exists()
    resumed = start(folder, "broken", "broken-report")
    _, told = resumed.communicate(timeout=300)
    assert resumed.returncode == 1
    assert f"{25 - done} models trained, {done} found" in told.decode()
    assert without_timing(folder / "broken-report") == without_timing(folder / "whole-report")


def test_scores_that_are_replaced_between_two_runs_do_not_change_the_verdict(folder: Path) -> None:
    """Before claims were sealed, scores of nothing put into the cache turned "leaks" into "within" and exit code 0."""
    first = auditor("audit", "plan.toml", "--out", "one", "--quiet")
    claims = sorted((folder / ".auditor" / "claims").glob("*.claim"))
    assert claims
    for path in claims:
        content = path.read_bytes()
        archive = io.BytesIO(content[HEAD_SIZE:])
        with np.load(archive) as file:
            fields = dict(file)
        forged = io.BytesIO()
        np.savez(forged, **fields | {"scores": np.zeros_like(fields["scores"])})
        path.write_bytes(content[:HEAD_SIZE] + forged.getvalue())
    second = auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert without_timing(folder / "one") == without_timing(folder / "two")
    assert report(folder / "two")["timing"]["reused"] == {"models": 9}  # and none of the claims


def test_what_an_earlier_run_kept_is_said(folder: Path) -> None:
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert report(folder / "one")["timing"]["reused"] == {}
    reused = report(folder / "two")["timing"]["reused"]
    assert reused["models"] == 9
    assert reused["attacks"] >= 1
    assert "Kept from an earlier run" in (folder / "two" / "report.html").read_text()


def test_a_work_folder_that_came_with_a_repository_is_refused(folder: Path) -> None:
    auditor("audit", "plan.toml", "--out", "one", "--quiet")
    (folder / ".auditor").chmod(0o755)  # as git makes it
    refused = auditor("audit", "plan.toml", "--out", "two", "--quiet")
    assert refused.exit_code == 2
    assert "mode 0755" in refused.stderr
