"""Tunings of real models: refused plans, an answer, blindness, a kill at every step, and the command."""

import hashlib
import json
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant
from safetensors.torch import load_file
from typer.testing import CliRunner

from attacks.membership.loss_threshold import LossThreshold
from auditor.cli.main import app
from auditor.context import Replicate, RunContext
from auditor.targets.trained_here import trained_subject
from auditor.tuning.plan import tune_plan
from auditor.tuning.private_selection import members_found
from auditor.tuning.run import run_tuning
from auditor.workspace import Workspace
from defenses.defense import History
from defenses.errors import PlanError
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from reports.pages.tuning_page import render_tuning, tuning_markdown
from reports.records.report import Status
from reports.records.tuning import Look, Outcome, Stage, Tuning

PLAN = """
title = "digits"
seed = 3
delta = 1e-5
shadows = 4
[data]
source = "digits"
pool = 200
[model]
architecture = "mlp"
options = { hidden = [64] }
[training]
epochs = 40
batch_size = 50
learning_rate = 0.5
[control]
epochs = 100
learning_rate = 0.1
momentum = 0.9
[scheme]
name = "dp_sgd"
max_grad_norm = 5.0
"""
ATTACKS = """
[[attacks]]
name = "loss_threshold"
[[limits]]
measure = "auc"
maximum = {limit}
"""
TUNE = """
[tune]
knob = "noise_multiplier"
settings = [8, 0.01]
"""

SELECTION = """
knob = "noise_multiplier"
settings = [8, 4, 0.01]
mode = "private_selection"
private_score = { maximum = 0.2, noise = 4, tries = 3 }
"""


def content(more: str = TUNE, *, limit: float = 0.62, base: str = PLAN) -> dict[str, Any]:
    return tomllib.loads(base + ATTACKS.format(limit=limit) + more)


def tuned(given: dict[str, Any], folder: Path, **changes: Any) -> Tuning:
    context = RunContext(Workspace(folder / "work"), device="cpu", **changes)
    return run_tuning(tune_plan(given), context, folder / "out")


def plain(record: Tuning) -> dict[str, Any]:
    """Return a record without its times."""
    found: dict[str, Any] = json.loads(record.to_json())
    for entry in (found, *found["looks"]):
        entry.pop("seconds")
    found.pop("started")
    return found


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ('knob = "noise_multiplier"', "either settings, a list of values, or range"),
        ('knob = "noise_multiplier"\nsettings = [1]\nrange = [1, 2]', "either settings, a list of values, or range"),
        ('knob = "noise_multiplier"\nrange = [8, 2]', "lower end first"),
        ('knob = "noise_multiplier"\nrange = [2, 2]', "lower end first"),
        ('knob = "noise_multiplier"\nsettings = [inf]', "must be finite"),
        ('knob = "noise_multiplier"\nsettings = [2, 2]', "holds a value twice"),
        ('knob = "noise_multiplier"\nsettings = [-1]', "noise_multiplier is -1"),
        ('knob = "noise_multiplier"\nsettings = [1]\nruns = 9', "runs is for about = 'scheme'"),
        ('knob = "noise_multiplier"\nsettings = [1]\nsteps = 3', "lists them already"),
        ('knob = "noise_multiplier"\nsettings = [1]\nabout = "scheme"\nruns = 4', "greater than or equal to 8"),
        ('knob = "noise_multiplier"\nsettings = [1]\nminimum_acuracy = 0.8', "did you mean 'minimum_accuracy'"),
        ('knob = "sigma"\nsettings = [1]', "has no 'sigma'; its numbers are"),
        ('knob = "delta"\nsettings = [1e-5, 1e-6]', "give stronger = 'larger' or 'smaller'"),
        ('knob = "noise_multiplier"\nsettings = [1, 2]\nstronger = "smaller"', "turn `stronger` round"),
        ('knob = "noise_multiplier"\nsettings = [1]\nepsilon = 2', r"needs \[white_box\]"),
        ('knob = "noise_multiplier"\nsettings = [0.5]\nepsilon_ceiling = 0.1', "above the ceiling of 0.1"),
        ('knob = "noise_multiplier"\nsettings = [1]\nmode = "private_selection"', "which needs it"),
        (SELECTION.replace("noise = 4", "noise = 40"), "less noise or more records"),
        (SELECTION, r"false alarms of 0.05; give \[data\] a population of at least 20"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_is_trained(tune: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=words):
        tuned(content(f"[tune]\n{tune}\n"), tmp_path)
    assert not (tmp_path / "work" / "models").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("scheme.noise_multiplier = 2", "is looked for, and [scheme] fixes it"),
        ("control.enabled = false", "a tuning needs it"),
    ],
)
def test_what_contradicts_the_tuning_is_refused(change: str, words: str) -> None:
    given = content()
    (part, name), value = change.split(" = ")[0].split("."), change.split(" = ")[1]
    given[part][name] = json.loads(value)
    with pytest.raises(PlanError) as found:
        tune_plan(given)
    assert words in str(found.value)


@pytest.mark.parametrize("missing", ["tune", "data", "scheme"])
def test_what_a_tuning_needs_is_named(missing: str) -> None:
    given = content()
    del given[missing]
    with pytest.raises(PlanError, match=f"key '{missing}' is missing"):
        tune_plan(given)


def test_a_limit_that_so_few_records_cannot_resolve_is_refused_with_the_number_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"even an attack that finds nothing .* about [\d,]+ of each would do"):
        tuned(content(limit=0.51), tmp_path)
    with pytest.raises(PlanError, match="which guessing reaches"):
        tuned(content(limit=0.5), tmp_path)
    few = content()
    few["limits"] = [{"measure": "tpr_at_fpr_0.001", "maximum": 0.01}]
    with pytest.raises(PlanError, match="measured at no rate at all"):
        tuned(few, tmp_path)
    assert not (tmp_path / "work" / "models").exists()


def test_a_limit_on_epsilon_that_so_few_canaries_cannot_resolve_is_refused(tmp_path: Path) -> None:
    given = content('[tune]\nknob = "noise_multiplier"\nsettings = [4]\nepsilon = 8\n')
    given["white_box"] = {"canaries": 8, "steps": 20}
    with pytest.raises(PlanError, match=r"160 canaries times steps even steps as promised .* about [\d,]+ would do"):
        tuned(given, tmp_path)
    assert not (tmp_path / "work" / "models").exists()


def test_settings_come_with_the_strongest_noise_first() -> None:
    ranged = tune_plan(content('[tune]\nknob = "noise_multiplier"\nrange = [0.5, 8]\nsteps = 5\n'))
    assert ranged.settings == (8.0, 4.0, 2.0, 1.0, 0.5)
    assert tune_plan(content('[tune]\nknob = "epsilon"\nsettings = [8, 1, 4]\n')).settings == (1.0, 4.0, 8.0)
    assert ranged.at(4.0).scheme.parameters["noise_multiplier"] == 4  # type: ignore[union-attr]


def test_settings_above_the_ceiling_are_left_out(tmp_path: Path) -> None:
    ceiling = '[tune]\nknob = "noise_multiplier"\nsettings = [16, 8, 0.01]\nepsilon_ceiling = 5\n'
    found = tuned(content(ceiling), tmp_path)
    assert (found.settings, found.above_ceiling) == ([16.0, 8.0], [0.01])
    assert found.looks
    assert all(look.epsilon is not None and look.epsilon <= 5 for look in found.looks)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    folder = tmp_path_factory.mktemp("tuning")
    return tuned(content(), folder), folder


def test_it_answers_with_the_least_noise_that_passes(answered: tuple[Tuning, Path]) -> None:
    record, folder = answered
    assert (record.outcome, record.answer) == (Outcome.FOUND, 8.0)
    assert [(look.stage, look.value) for look in record.looks] == [
        (Stage.WALK, 8.0), (Stage.WALK, 0.01), (Stage.FINAL, 8.0)
    ]  # fmt: skip
    assert [look.verdict for look in record.looks][::2] == [Status.WITHIN, Status.WITHIN]
    assert record.looks[1].bound_by == "loss_threshold"
    assert all((folder / "out" / report).exists() for look in record.looks for report in look.reports)
    assert record.sights[0].sees
    assert record.sights[0].planted is not None
    assert record.sights[0].planted >= 16


def test_the_final_look_is_of_a_split_and_a_seed_that_the_walk_did_not_see(answered: tuple[Tuning, Path]) -> None:
    record, folder = answered
    reports = [json.loads((folder / "out" / look.reports[0]).with_suffix(".json").read_text()) for look in record.looks]
    digests = [report["subject"]["model_digest"] for report in reports]
    assert len(set(digests)) == 3
    assert reports[0]["subject"]["members"] != reports[2]["subject"]["members"]


def test_it_says_what_is_not_covered(answered: tuple[Tuning, Path]) -> None:
    price = " ".join(answered[0].price)
    assert "The choice of the setting is not covered" in price
    assert f"epsilon {answered[0].looks[-1].epsilon:.4g}" in price
    assert "all 3 together" in price


def test_without_a_seed_the_final_model_is_handed_over_and_nothing_can_be_drawn_again(
    answered: tuple[Tuning, Path], tmp_path: Path
) -> None:
    assert not (answered[1] / "out" / "model.safetensors").exists()  # its seed stands in the plan
    assert "for audit use only" in " ".join(answered[0].price)
    given = content(TUNE.replace("[8, 0.01]", "[8]"), limit=0.65)
    del given["seed"]
    found = tuned(given, tmp_path)
    path = tmp_path / "out" / "model.safetensors"
    assert path.exists() is (found.answer is not None)
    assert "for audit use only" not in " ".join(found.price)
    assert plain(tuned(given, tmp_path)) == plain(found)  # the secret is kept: another run is no other draw
    if found.answer is not None:
        assert path.stat().st_mode & 0o077 == 0
        report = json.loads((tmp_path / "out" / found.looks[-1].reports[0]).with_suffix(".json").read_text())
        digest = hashlib.sha256()
        for name, value in sorted(load_file(path).items()):
            digest.update(name.encode() + b"\0" + value.numpy().tobytes())
        assert report["subject"]["model_digest"] == digest.hexdigest()


def test_the_page_and_the_summary_say_the_same(answered: tuple[Tuning, Path]) -> None:
    record = Tuning.from_json(answered[0].to_json())
    page, text = render_tuning(record), tuning_markdown(record)
    assert record.headline in page
    assert "noise_multiplier 8, fresh split and seed" in page
    assert "data:image/svg+xml" in page
    assert "<script" not in page
    assert "The choice of the setting is not covered" in text
    assert render_tuning(record) == page


def test_every_draw_has_coins_of_its_own(tmp_path: Path) -> None:
    plan = tune_plan(content()).at(8.0)
    roots = {
        root
        for draw in (None, Replicate("walk 8.0", 2), Replicate("walk 4.0", 2), Replicate("final 8.0"))
        for root in RunContext(Workspace(tmp_path), draw=draw).roots(plan.seed, "content")
    }
    assert len(roots) == 6
    with pytest.raises(ValueError, match="index is 2"):
        Replicate("walk", 2, 2)


class StopError(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_a_kill_at_every_step_resumes_to_the_same_trace(answered: tuple[Tuning, Path], tmp_path: Path) -> None:
    """Stop at every stage of training and after every look, each time a little further, until it goes through."""
    come_to: set[str] = set()

    def stop_at(place: str) -> None:
        if place not in come_to:
            come_to.add(place)
            raise StopError

    def on_look(look: Look, left: float) -> None:
        stop_at(f"{look.stage} {look.value}")

    found = None
    while found is None:
        try:
            context = RunContext(
                Workspace(tmp_path / "work"), device="cpu", on_progress=lambda progress: stop_at(progress.stage)
            )
            found = run_tuning(tune_plan(content()), context, tmp_path / "out", on_look=on_look)
        except StopError:
            assert len(come_to) < 50
    assert len(come_to) >= 7
    assert plain(found) == plain(answered[0])


def test_a_second_run_trains_nothing_and_says_the_same(answered: tuple[Tuning, Path], tmp_path: Path) -> None:
    record, folder = answered
    before = sorted(path.name for path in (folder / "work" / "models").iterdir())
    again = run_tuning(tune_plan(content()), RunContext(Workspace(folder / "work"), device="cpu"), tmp_path / "out")
    assert plain(again) == plain(record)
    assert sorted(path.name for path in (folder / "work" / "models").iterdir()) == before


@pytest.mark.slow
def test_models_of_a_statement_about_the_scheme_are_the_unit(tmp_path: Path) -> None:
    about = '[tune]\nknob = "noise_multiplier"\nsettings = [8]\nabout = "scheme"\n'
    found = tuned(content(about), tmp_path)
    assert [len(look.reports) for look in found.looks] == [8, 8]
    probe = found.looks[0].probes[0]
    assert (probe.found.n, probe.found.unit, len(set(probe.runs))) == (8, "model", 8)
    assert found.looks[0].accuracy_holdout is not None
    assert found.looks[0].accuracy_holdout.unit == "model"


def test_a_control_that_does_not_leak_ends_it_before_the_walk(tmp_path: Path) -> None:
    given = content()
    given["control"] = {"epochs": 1, "learning_rate": 0.001}
    found = tuned(given, tmp_path)
    assert (found.outcome, found.looks, int(found.exit_code)) == (Outcome.BLIND, [], 3)
    assert "candidates" in " ".join(found.remedies) or "Train the control longer" in " ".join(found.remedies)


def test_a_limit_that_no_protection_keeps_too_says_nothing(tmp_path: Path) -> None:
    found = tuned(content(limit=0.95), tmp_path)
    assert found.outcome is Outcome.BLIND
    assert "even without protection its AUC is" in found.remedies[0]


def test_a_setting_that_cannot_be_trained_is_said_and_ends_it(tmp_path: Path) -> None:
    given = content()
    given["training"]["learning_rate"] = 1e30
    found = tuned(given, tmp_path)
    assert (found.outcome, int(found.exit_code)) == (Outcome.FAILED, 4)
    assert "could not be trained" in found.headline
    assert render_tuning(found)


def test_an_attack_that_breaks_at_the_first_look_is_a_failure_and_not_blindness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(LossThreshold, "run", broken)
    found = tuned(content(), tmp_path)
    assert (found.outcome, int(found.exit_code)) == (Outcome.FAILED, 4)
    assert "it broke" in found.headline


def test_an_accuracy_beyond_the_unprotected_model_ends_it_too(tmp_path: Path) -> None:
    found = tuned(content(TUNE + "minimum_accuracy = 0.999\n"), tmp_path)
    assert (found.outcome, int(found.exit_code)) == (Outcome.BLIND, 3)
    assert "even without protection the model reaches" in found.headline


def test_no_setting_passes_is_said_with_the_nearest_figure(tmp_path: Path) -> None:
    given = content('[tune]\nknob = "noise_multiplier"\nsettings = [0.02, 0.01]\n', limit=0.6)
    given["attacks"] = [{"name": "lira"}]
    found = tuned(given, tmp_path)
    assert (found.outcome, found.answer, int(found.exit_code)) == (Outcome.NONE, None, 1)
    assert "No setting passes, not even the strongest noise, noise_multiplier 0.02: " in found.headline
    assert "the limit being 0.6" in found.headline


@pytest.mark.slow
def test_usual_attacks_have_canaries_beside_them(tmp_path: Path) -> None:
    """A plan that lists no attacks is tuned by membership attacks and by gradient canaries in the steps."""
    given = tomllib.loads(PLAN + '[[limits]]\nmeasure = "auc"\nmaximum = 0.65\n' + TUNE.replace("[8, 0.01]", "[8]"))
    given["white_box"] = {"canaries": 100, "steps": 80}
    given["tune"]["epsilon"] = 30.0
    found = tuned(given, tmp_path)
    probes = {probe.attack: probe for probe in found.looks[0].probes}
    assert "lira" in probes
    steps = probes["white_box"]
    assert steps.found.low is not None
    assert steps.found.high is not None
    assert found.looks[0].epsilon is not None
    assert steps.found.low <= found.looks[0].epsilon <= steps.found.high < 30


def test_the_command_ends_with_the_code_of_the_outcome_and_leaves_no_old_answer(tmp_path: Path) -> None:
    path, out = tmp_path / "plan.toml", tmp_path / "out"
    path.write_text(PLAN + ATTACKS.format(limit=0.62) + TUNE.replace("[8, 0.01]", "[8]"))
    told = ["tune", str(path), "--out", str(out), "--work-dir", str(tmp_path / "work"), "--device", "cpu", "-q"]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0
    assert "at most 2 looks" in done.stderr
    assert "Even the least noise in the range passes" in done.stdout
    assert {"tuning.json", "tuning.html", "summary.md"} <= {path.name for path in out.iterdir()}
    path.write_text(path.read_text().replace("maximum = 0.62", "maximum = 0.501"))
    refused = CliRunner().invoke(app, told)
    assert refused.exit_code == 2
    assert not (out / "tuning.json").exists()


@pytest.mark.slow
def test_a_private_selection_is_priced_and_tells_only_the_best_try(tmp_path: Path) -> None:
    given = content(f"[tune]{SELECTION}", limit=0.68)
    given["data"]["population"] = 200
    found = tuned(given, tmp_path)
    chosen = found.selection
    assert chosen is not None
    assert [look.stage for look in found.looks] == [Stage.FINAL]
    assert found.looks[0].value == chosen.value
    lots = Lots(100, 50, 40)
    weakest = DPSGD(noise_multiplier=0.01).event(History(lots))
    accountant = RdpAccountant()
    one = dp_accounting.ComposedDpEvent([weakest, dp_accounting.GaussianDpEvent(4)])
    accountant.compose(RepeatAndSelectDpEvent(one, 3, 1)).compose(weakest)  # whatever was chosen
    assert chosen.epsilon == pytest.approx(accountant.get_epsilon(1e-5))
    assert "The choice of the setting is covered" in found.price[0]
    assert "were everything" not in " ".join(found.price).lower()
    assert found.headline.startswith(f"noise_multiplier {chosen.value:g} was chosen privately")
    assert plain(tuned(given, tmp_path)) == plain(found)
    renamed = {name: part for name, part in given.items() if name != "seed"}
    first = tuned(renamed, tmp_path / "secret")
    again = tuned(renamed | {"title": "another"}, tmp_path / "secret")
    assert first.selection == again.selection  # a new name is no new draw


def test_the_private_score_moves_by_at_most_one_with_a_record(tmp_path: Path) -> None:
    """Brute force over the members: what is counted of one model, with and without each of them."""
    given = content()
    given["data"] |= {"pool": 120, "population": 40}
    plan = tune_plan(given).at(8.0)
    subject = trained_subject(plan, RunContext(Workspace(tmp_path), device="cpu"))
    counts = [members_found(subject, 0.05, "cpu")]
    for member in np.flatnonzero(subject.split.included):
        without = subject.split.included.copy()
        without[member] = False
        fewer = replace(subject, split=replace(subject.split, included=without))
        counts.append(members_found(fewer, 0.05, "cpu"))
    assert {counts[0] - count for count in counts} <= {0, 1}


def test_it_goes_on_after_a_real_kill(answered: tuple[Tuning, Path], tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN + ATTACKS.format(limit=0.62) + TUNE)
    told = [sys.executable, "-m", "auditor.cli.main", "tune", str(path), "--device", "cpu"]
    told += ["--out", str(tmp_path / "out"), "--work-dir", str(tmp_path / "work")]
    models = tmp_path / "work" / "models"
    killed = subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(models.glob("*.model")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "out" / "tuning.json").exists()
    found = tuned(content(), tmp_path)
    assert plain(found) == plain(answered[0])
