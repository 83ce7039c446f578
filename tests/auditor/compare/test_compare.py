"""Comparisons: plans that are refused before anything is trained, runs that fail, contradictions, a second run."""

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditor.audit import Audit, run_audit
from auditor.cli.main import app
from auditor.compare.plan import compare_plan
from auditor.compare.run import run_comparison
from auditor.context import RunContext
from auditor.workspace import Workspace
from defenses.errors import PlanError
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee
from defenses.schemes import registered_schemes
from defenses.schemes.none import NoDefense
from reports.pages.comparison_page import comparison_markdown, headline, render_comparison
from reports.records.comparison import Comparison, Place, place_of

PLAN = """
title = "digits under schemes"
seed = 3
delta = 1e-5
[data]
source = "digits"
pool = 400
[model]
architecture = "mlp"
options = { hidden = [64] }
[training]
epochs = 60
batch_size = 50
learning_rate = 0.5
[[attacks]]
name = "loss_threshold"
"""


def content(more: str) -> dict[str, Any]:
    return tomllib.loads(PLAN + more)


@dataclass(frozen=True)
class Liar(NoDefense):
    """Claims what it does not do."""

    name = "liar"
    title = "a scheme that promises too much"

    def claimed(self, history: object) -> Guarantee:
        return Guarantee(0.01, 1e-5, self.neighboring)

    def event(self, history: object) -> object:
        return PureDpEvent(0.01)


@pytest.fixture
def with_liar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.plan.resolve.registered_schemes", lambda: registered_schemes() | {"liar": Liar})


def test_each_value_is_an_audit_of_its_own_with_its_own_training() -> None:
    plan = compare_plan(
        content(
            '[[schemes]]\nname = "none"\n'
            '[[schemes]]\nname = "dp_sgd"\nvary = "epsilon"\nvalues = [1, 8]\ntraining = { learning_rate = 2.0 }\n'
        )
    )
    assert [(cell.label, cell.value) for cell in plan.cells] == [("none", None), ("dp_sgd", 1), ("dp_sgd", 8)]
    assert [cell.plan.training.learning_rate for cell in plan.cells if cell.plan.training] == [0.5, 2.0, 2.0]
    assert plan.cells[2].plan.scheme is not None
    assert plan.cells[2].plan.scheme.parameters == {"epsilon": 8}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "key 'schemes' is missing"),
        ('[scheme]\nname = "none"\n[[schemes]]\nname = "none"', r"\[scheme\] is for a single audit"),
        ('[[schemes]]\nvary = "epsilon"', r"schemes\.0\.name"),
        ('[[schemes]]\nname = "dp_sgd"\nvary = "epsilon"', "needs both `vary`"),
        ('[[schemes]]\nname = "dp_sgd"\nvalues = [1]', "needs both `vary`"),
        ('[[schemes]]\nname = "dp_sgd"\nvary = "epsilon"\nvalues = [1]\nepsilon = 2', "varies 'epsilon' and fixes it"),
        ('[[schemes]]\nname = "none"\n[[schemes]]\nname = "none"', "listed twice"),
        ('[[schemes]]\nname = "none"\ntraining = { rate = 1 }', "schemes, none: key 'training.rate' is unknown"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(more: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        compare_plan(content(more))


@pytest.mark.slow
def test_steps_are_watched_where_they_can_be_tested(tmp_path: Path) -> None:
    more = (
        "[white_box]\ncanaries = 40\nsteps = 10\n"
        '[[schemes]]\nname = "none"\n[[schemes]]\nname = "dp_sgd"\nepsilon = 4\n'
    )
    text = PLAN.replace("epochs = 60", "epochs = 2") + more
    found = run_comparison(compare_plan(tomllib.loads(text)), RunContext(Workspace(tmp_path / "w")), tmp_path / "out")
    assert [run.epsilons is not None and run.epsilons.implied is not None for run in found.runs] == [False, True]
    with pytest.raises(PlanError, match="canaries"):
        compare_plan(content('[white_box]\ncanaries = 0\n[[schemes]]\nname = "none"'))


def test_a_scheme_that_does_not_exist_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    plan = compare_plan(content('[[schemes]]\nname = "none"\n[[schemes]]\nname = "dp_sdg"\nepsilon = 1'))
    with pytest.raises(PlanError, match="did you mean 'dp_sgd'"):
        run_comparison(plan, RunContext(Workspace(tmp_path / "work")), tmp_path)
    assert not list(tmp_path.rglob("*.model"))


def test_a_contradiction_is_a_finding_and_a_failure_is_a_row(with_liar: None, tmp_path: Path) -> None:
    more = (
        '[[schemes]]\nname = "none"\n[[schemes]]\nname = "liar"\n'
        '[[schemes]]\nname = "none"\nlabel = "too fast"\ntraining = { learning_rate = 1e30 }\n'
    )
    plan, context = compare_plan(content(more)), RunContext(Workspace(tmp_path / "work"))
    found = run_comparison(plan, context, tmp_path / "out")
    assert [place_of(run) for run in found.runs] == [Place.NOTHING, Place.CONTRADICTED, Place.FAILED]
    assert "diverged" in (found.runs[2].reason or "")
    assert found.runs[1].accuracy_holdout is not None
    assert (tmp_path / "out" / (found.runs[1].report or "")).exists()
    assert "1 of 3 runs contradict what is promised" in headline(found)
    assert Comparison.from_json(found.to_json()) == found

    page = render_comparison(found)
    assert page == render_comparison(found)
    assert "contradicted" in page
    assert "did not run" in comparison_markdown(found)
    again = run_comparison(plan, context, tmp_path / "out")
    assert [run.epsilons for run in again.runs] == [run.epsilons for run in found.runs]


def test_the_command_says_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN.replace("epochs = 60", "epochs = 1") + '[[schemes]]\nname = "none"\n')
    done = CliRunner().invoke(app, ["compare", "plan.toml", "-q"])
    assert done.exit_code == 0, done.output
    assert "nothing is promised" in done.output
    for name in ("comparison.json", "comparison.html", "summary.md", "01-none/report.html"):
        assert (tmp_path / "compare-plan" / name).exists()
    bad = CliRunner().invoke(app, ["compare", "missing.toml"])
    assert bad.exit_code == 2
    assert "missing.toml cannot be read" in bad.output


def told(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a comparison, less its clocks."""
    rows = json.loads((folder / "comparison.json").read_text())["runs"]
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


@pytest.mark.slow
def test_what_was_stopped_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered_schemes = '[[schemes]]\nname = "none"\n[[schemes]]\nname = "dp_sgd"\nepsilon = 2\n'
    (tmp_path / "plan.toml").write_text(PLAN.replace("epochs = 60", "epochs = 2") + registered_schemes)
    audits = 0

    def stopped_in_the_second(*given: Any) -> Audit:
        nonlocal audits
        audits += 1
        if audits == 2:
            raise KeyboardInterrupt
        return run_audit(*given)

    def compare(out: str, work: str) -> Any:
        asked = ["compare", "plan.toml", "-q", "--out", out, "--work-dir", work]
        return CliRunner().invoke(app, asked)

    monkeypatch.chdir(tmp_path)
    assert compare("whole", "one").exit_code == 0
    old = tmp_path / "again" / "02-dp-sgd"
    old.mkdir(parents=True)
    for path in (old / "report.html", tmp_path / "again" / "comparison.html"):
        path.write_text("of an earlier run")
    monkeypatch.setattr("auditor.compare.run.run_audit", stopped_in_the_second)
    done = compare("again", "two")
    assert done.exit_code == 130
    assert "Stopped. What is trained is kept" in done.output
    assert sorted(path.name for path in (tmp_path / "again").iterdir() if any(path.iterdir())) == ["01-none"]
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "two" / "models").glob("*.model")}
    assert compare("again", "two").exit_code == 0
    assert told(tmp_path / "again") == told(tmp_path / "whole")
    assert kept
    assert all((tmp_path / "two" / "models" / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_ctrl_c_while_torch_is_loading_is_no_crash() -> None:
    """Raised inside torch's native initialisation, KeyboardInterrupt aborts the process; so it is not raised there."""
    script = (
        "import os, signal, sys, types\n"
        "from auditor.cli.errors import guarded\n"
        "loading = types.ModuleType('torch')\n"
        "loading.__spec__ = types.SimpleNamespace(_initializing=True)\n"
        "sys.modules['torch'] = loading\n"
        "with guarded(debug=False):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except BaseException:\n"
        "        os.abort()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{script}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.strip() == "Stopped. Trained models are kept; run the same command again to continue."
