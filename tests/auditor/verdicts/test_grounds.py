"""What an owner says about who was a member, end to end: doubted where data or shadow models tell otherwise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from auditor.audit import Audit, run_audit
from auditor.context import RunContext
from auditor.plan.plan import load_plan
from auditor.workspace import Workspace
from reports.gate.apply_policy import Policy, apply_policy
from reports.pages.markdown import summary
from reports.pages.report_page import render
from reports.records.report import Finding, Report, Status

BOTH = "".join(f'[checkpoint.{side}]\nsource = "{side}.npz"\n' for side in ("members", "nonmembers"))
PLAN = (
    'title = "t"\nshadows = 10\n[[attacks]]\nname = "lira"\n[[attacks]]\nname = "loss_threshold"\n'
    '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n[claim]\nepsilon = 0.5\ndelta = 1e-5\n'
    '[model]\narchitecture = "mlp"\noptions = { hidden = [64] }\n'
    '[checkpoint]\npath = "model.safetensors"\ninclusion = "independent_coins"\nclasses = 10\n' + BOTH
)
RECIPE = "[training]\nepochs = 40\nbatch_size = 32\nlearning_rate = 0.05\nmomentum = 0.9\n"


def handed_over(folder: Path, how: str, *, records: int = 500, noise: float = 0.3) -> None:
    """Train on digits with random labels among them, as an owner would, and hand over the two sides."""
    from sklearn.datasets import load_digits

    rng, digits = np.random.default_rng(7), load_digits()
    chosen = rng.permutation(len(digits.target))[:records]
    x = (digits.data[chosen] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    y = digits.target[chosen].astype(np.int64)
    wrong = rng.random(records) < noise
    y[wrong] = rng.integers(0, 10, wrong.sum())
    coins = rng.random(records) < 0.5
    sides = {"members": (x[coins], y[coins]), "nonmembers": (x[~coins], y[~coins])}
    trained = (x, y) if how == "holdout trained on" else sides["members"]
    if how == "swapped":
        sides = {"members": sides["nonmembers"], "nonmembers": sides["members"]}
    if how == "near-duplicates":
        members, labels = sides["members"]
        blurred = members + rng.normal(scale=0.01, size=members.shape)
        sides["nonmembers"] = blurred.clip(0, 1).astype(np.float32), labels
    if how == "brighter":
        sides["nonmembers"] = (0.1 + 0.9 * sides["nonmembers"][0]).astype(np.float32), sides["nonmembers"][1]
    for name, (images, labels) in sides.items():
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    _train(folder / "model.safetensors", *trained)
    (folder / "plan.toml").write_text(PLAN + RECIPE)


def _train(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(40):
        for lot in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(features[lot]), labels[lot]).backward()
            optimizer.step()
    save_file(model.state_dict(), path)


def audited(folder: Path, edit: tuple[str, str] = ("", "")) -> Audit:
    plan = folder / "plan.toml"
    plan.write_text(plan.read_text().replace(*edit))
    return run_audit(load_plan(plan), RunContext(Workspace(folder / "work"), folder, device="cpu"))


def only(report: Report, code: str) -> Finding:
    return next(finding for finding in report.findings if finding.code == code)


def claims(report: Report) -> Status:
    return only(report, "PA001").status


def test_a_holdout_that_was_trained_on_cannot_pass(tmp_path: Path) -> None:
    # The reported case: every attack is within its limit and the claim consistent, and that was the verdict (exit code
    # 0). Fails if findings on the grounds do not count, or if the gate looks at its own rules only.
    handed_over(tmp_path, "holdout trained on")
    report = audited(tmp_path).report
    assert claims(report) is Status.CONSISTENT
    assert {finding.status for finding in report.findings if finding.code == "PA010"} == {Status.WITHIN}
    found = only(report, "PA020")
    assert found.status is Status.INCONCLUSIVE
    assert found.found is not None
    assert found.found.low is not None
    assert found.found.low > 0.3
    assert report.verdict is Status.INCONCLUSIVE
    assert report.headline == found.sentence
    assert report.exit_code == 3
    for lenient in (False, True):
        policy = Policy.model_validate(
            {"rules": [{"measure": "auc", "maximum": 0.6}], "allow_inconclusive": lenient, "require_control": False}
        )
        result = apply_policy(report, policy)
        assert result.exit_code == 3
        assert result.rows[0].rule == "grounds"
    assert only(report, "PA021").status is Status.INFORMATION


def test_an_honest_owner_keeps_the_verdict(tmp_path: Path) -> None:
    # Fails if findings that raise no doubt count, or if a proven leak loses to anything less.
    handed_over(tmp_path, "honest")
    report = audited(tmp_path).report
    assert report.verdict is Status.VIOLATED
    assert report.exit_code == 1
    for code in ("PA020", "PA021"):
        assert only(report, code).status is Status.INFORMATION
        assert not only(report, code).counts
    trusted = {one.what: one.tested for one in report.trusted}
    assert next(tested for what, tested in trusted.items() if "Who was a member" in what) == "PA020 and PA021"
    assert any("fair coin" in what for what in trusted)
    assert any("claimed epsilon 0.5" in what for what in trusted)
    for page in (render(report), summary(report)):
        assert "takes on trust" in page
        assert "Who was a member: that the target was trained on the declared members" in page


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("swapped", "PA020", "look swapped"),
        ("near-duplicates", "PA021", "near-duplicates cross the sides"),
    ],
)
def test_sides_that_are_not_what_they_are_said_to_be_cannot_pass(
    how: str, code: str, words: str, tmp_path: Path
) -> None:
    # Each was consistent and within its limits: swapped files fail a test that looks at the upper tail of one side
    # only; near-duplicates one that compares records exactly.
    handed_over(tmp_path, how)
    report = audited(tmp_path).report
    assert claims(report) is Status.CONSISTENT
    assert only(report, code).status is Status.INCONCLUSIVE
    assert words in only(report, code).sentence
    assert report.exit_code == 3


def test_sides_from_two_sources_are_told_apart_without_the_model(tmp_path: Path) -> None:
    # No recipe, so no shadow models: fails if the sides are looked at only where the holdout can be.
    handed_over(tmp_path, "brighter")
    report = audited(tmp_path, (RECIPE, "")).report
    found = only(report, "PA021")
    assert found.status is Status.INCONCLUSIVE
    assert "a classifier that never sees the model" in found.sentence
    assert report.exit_code != 0
    untested = only(report, "PA020")
    assert untested.found is None
    assert "not tested" in untested.sentence
    who = next(one for one in report.trusted if "Who was a member" in one.what)
    assert who.tested == "PA021"


def test_recorded_scores_are_tested_with_their_recorded_shadows(tmp_path: Path) -> None:
    # Fails if only shadow models that are trained here are asked.
    rng = np.random.default_rng(0)
    inside = rng.random((13, 400)) < 0.5
    logits = rng.normal(size=(13, 400)) + 3.0 * inside
    for name, member in (("honest", inside[0]), ("holdout trained on", rng.random(400) < 0.5)):
        said = logits[0] if name == "honest" else rng.normal(size=400) + 3.0
        np.savez(tmp_path / "scores.npz", member=member, score=said, shadow_score=logits[1:], shadow_member=inside[1:])
        (tmp_path / "plan.toml").write_text('title = "t"\nshadows = 12\n[scores]\npath = "scores.npz"\n')
        report = audited(tmp_path).report
        doubted = only(report, "PA020").status is Status.INCONCLUSIVE
        assert doubted is (name == "holdout trained on")
        assert not any(finding.code == "PA021" for finding in report.findings)
        assert any("recorded shadow models" in one.what for one in report.trusted)


def test_a_target_that_the_audit_trains_needs_no_such_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "pool.npz", x=rng.normal(size=(120, 5)).clip(-6, 6), y=rng.integers(0, 4, 120))
    (tmp_path / "plan.toml").write_text(
        'title = "t"\nseed = 1\n[[attacks]]\nname = "loss_threshold"\n[model]\narchitecture = "mlp"\n'
        'options = { hidden = [8] }\n[data]\nsource = "pool.npz"\nclasses = 4\nvalue_range = [-6.0, 6.0]\n'
        "rescale = false\npool = 100\n" + RECIPE.replace("40", "2")
    )
    report = audited(tmp_path).report
    assert not {finding.code for finding in report.findings} & {"PA020", "PA021"}
    assert not any("Who was a member" in one.what for one in report.trusted)
    assert any("seed" in one.what for one in report.trusted)
