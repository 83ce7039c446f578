"""[white_box] in a plan: a row of its own in the report, which sees faults of the scheme and says when it cannot."""

from pathlib import Path

import numpy as np
import pytest

from auditor.audit import Audit, run_audit
from auditor.context import RunContext
from auditor.plan.plan import parse_plan
from auditor.workspace import Workspace
from defenses.errors import PlanError
from defenses.gradients import ClippedGaussian
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from reports.pages.markdown import summary
from reports.pages.report_page import render
from reports.records.report import Report, Status

PLAN = """
title = "watched"
seed = 1
[data]
source = "pool.npz"
classes = 4
value_range = [-6.0, 6.0]
rescale = false
pool = 300
[model]
architecture = "mlp"
options = { hidden = [32] }
[training]
epochs = 10
batch_size = 10
learning_rate = 0.5
[control]
enabled = false
[[attacks]]
name = "loss_threshold"
"""
SCHEME = '[scheme]\nname = "dp_sgd"\nmax_grad_norm = 0.3\n'
WATCHED = "[white_box]\ncanaries = 256\nsteps = 40\n"


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20)).astype(np.float32).clip(-6, 6)
    np.savez(tmp_path / "pool.npz", x=x, y=rng.integers(0, 4, 300))
    return RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path, device="cpu")


def audit(context: RunContext, more: str) -> Audit:
    return run_audit(parse_plan(PLAN + more), context)


@pytest.mark.slow
def test_steps_of_a_sound_scheme_imply_most_of_what_is_proved(context: RunContext) -> None:
    report = audit(context, SCHEME + "epsilon = 8.0\n" + WATCHED).report
    implied, proved = report.epsilons.implied, report.epsilons.proved
    assert implied is not None
    assert proved is not None
    assert proved.epsilon is not None
    assert 0.85 * proved.epsilon < implied.lower < proved.epsilon
    assert implied.kind == "implied"
    (finding,) = [finding for finding in report.findings if finding.code == "PA003"]
    assert finding.status is Status.CONSISTENT
    assert "Gradient canaries imply epsilon of at least" in finding.sentence
    assert report.epsilons.shown is not None
    assert report.epsilons.shown.confidence == implied.confidence == pytest.approx(1 - 0.05 / 4)
    assert Report.from_json(report.to_json().encode()) == report
    assert "Implied by single steps: epsilon at least" in summary(report)
    page = render(report)
    assert "Implied by steps" in page
    assert "takes sampling and steps on trust" in page


def test_too_little_noise_contradicts_the_steps(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(self: DPSGD, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(self.max_grad_norm, self.noise(lots) / 2)

    monkeypatch.setattr(DPSGD, "gradient", weak)
    report = audit(context, SCHEME + "epsilon = 2.0\n" + WATCHED).report
    (finding,) = [finding for finding in report.findings if finding.code == "PA003"]
    assert finding.status is Status.VIOLATED
    assert "says nothing about the run as a whole" in finding.sentence
    assert report.verdict is Status.VIOLATED


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (WATCHED, "needs .data. and a .scheme. with noise"),
        (SCHEME + "noise_multiplier = 0.0\n" + WATCHED, "white_box: scheme 'dp_sgd' makes no claim"),
        (SCHEME + "epsilon = 8.0\n[white_box]\ncanarys = 3\n", "did you mean 'canaries'"),
    ],
)
def test_nothing_to_watch_is_an_error_before_anything_is_trained(context: RunContext, more: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        audit(context, more)
    assert not (context.workspace.folder / "models").exists()
