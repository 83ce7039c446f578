"""Plans that cannot be answered: too few records, images of another size, a diverged model; a reason, never a NaN."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.plan.plan import parse_plan
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.errors import DataError, PlanError
from reports.pages.report_page import render
from reports.records.report import AttackStatus, Report, Status

TRAINED = """
title = "bad input"
seed = 1
[data]
source = "digits"
pool = 120
[model]
architecture = "mlp"
[training]
epochs = 1
batch_size = 20
learning_rate = 0.05
[[attacks]]
name = "loss_threshold"
[[attacks]]
name = "model_inversion"
steps = 5
[[limits]]
measure = "tpr_at_fpr_0.01"
maximum = 0.05
"""
RELEASED = """
title = "released"
[released]
synthetic = {source = "released.npz"}
members = {source = "members.npz"}
nonmembers = {source = "others.npz"}
[[attacks]]
name = "released_copies"
"""
CHECKPOINT = """
title = "diverged"
[checkpoint]
path = "model.safetensors"
members = {source = "members.npz"}
nonmembers = {source = "others.npz"}
[model]
architecture = "mlp"
[[attacks]]
name = "loss_threshold"
[[attacks]]
name = "model_inversion"
"""


def audited(plan: str, folder: Path) -> Report:
    """Run a plan, and refuse what is no number in all that people and machines read of it."""
    context = RunContext(Workspace(folder / ".auditor"), device="cpu", plan_folder=folder)
    report = run_audit(parse_plan(plan), context).report
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in a report"))
    assert ">nan<" not in render(report).lower()
    return report


def images(path: Path, *, count: int = 40, side: int = 8, seed: int = 0) -> None:
    x = np.random.default_rng(seed).random((count, 1, side, side)).astype(np.float32)
    np.savez(path, x=x, y=np.arange(count) % 4)


def test_fewer_than_a_hundred_records_make_no_rate_of_one_percent(tmp_path: Path) -> None:
    report = audited(TRAINED, tmp_path)
    assert report.verdict is Status.INCONCLUSIVE
    assert len(report.attacks) == len(report.findings) == 2
    for attack, finding in zip(report.attacks, report.findings, strict=True):
        rate = attack.measures["tpr_at_fpr_0.01"]
        assert (rate.value, rate.low, rate.high) == (None, None, None)
        assert "cannot resolve a false-positive rate of 1% (at least 100 needed)" in str(rate.reason)
        assert finding.status is Status.INCONCLUSIVE
        assert "at least 100 needed" in finding.sentence


@pytest.mark.parametrize("wrong", ["released", "others"])
def test_images_of_another_size_are_refused_before_anything_runs(wrong: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("released", "members", "others")):
        images(tmp_path / f"{name}.npz", side=12 if name == wrong else 8, seed=seed)
    with pytest.raises(DataError, match=r"shape \(1, 12, 12\), members of \(1, 8, 8\); they must agree"):
        audited(RELEASED, tmp_path)


def test_more_participants_than_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="64 victims with 4 records each need 256 members, and there are "):
        audited(f'{TRAINED}[[attacks]]\nname = "idlg"\n[gradients]\nbatch_size = 4\n', tmp_path)


def test_a_model_whose_answers_overflow_is_attacked_by_nobody(tmp_path: Path) -> None:
    for seed, name in enumerate(("members", "others")):
        images(tmp_path / f"{name}.npz", seed=seed)
    module = Architecture("mlp").build((1, 8, 8), 4, seed=0)
    state = module.state_dict()
    first = next(name for name, value in state.items() if value.ndim == 2)
    save_file(state | {first: torch.full_like(state[first], 3e38)}, tmp_path / "model.safetensors")
    report = audited(CHECKPOINT, tmp_path)
    assert report.verdict is Status.ERROR
    for attack in report.attacks:
        assert attack.status is AttackStatus.NOT_APPLICABLE
        assert "values that are not finite" in str(attack.reason)
