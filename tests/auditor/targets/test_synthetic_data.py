"""Released records as a target: copies are found, other records of the same source are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.plan.plan import parse_plan
from auditor.workspace import Workspace
from defenses.errors import DataError, PlanError
from reports.pages.report_page import render
from reports.records.report import AttackStatus, Report, Status

PLAN = """
title = "t"
[released.synthetic]
source = "synthetic.csv"
label = "job"
[released.members]
source = "members.csv"
label = "job"
[released.nonmembers]
source = "nonmembers.csv"
label = "job"
[released.population]
source = "population.csv"
label = "job"
[[attacks]]
name = "nearest_synthetic"
[[attacks]]
name = "linkability"
[[attacks]]
name = "singling_out"
[[attacks]]
name = "synthetic_attribute_inference"
attribute = "city"
[[attacks]]
name = "released_copies"
[[limits]]
measure = "auc"
maximum = 0.6
[[limits]]
measure = "singling_out_advantage"
maximum = 0.1
"""


def people(count: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, count),
            "pay": rng.gamma(2, 1000, count).round(),
            "hours": rng.integers(10, 60, count),
            "city": rng.choice(["x", "y", "z"], count),
            "home": rng.choice(["own", "rent"], count),
            "job": rng.choice(["yes", "no"], count),
        }
    )


def audited(folder: Path, synthetic: pd.DataFrame) -> Report:
    members = people(300, 1)
    for name, frame in {
        "members": members, "nonmembers": people(300, 2), "population": people(300, 3), "synthetic": synthetic
    }.items():  # fmt: skip
        frame.to_csv(folder / f"{name}.csv", index=False)
    return run_audit(parse_plan(PLAN), RunContext(Workspace(folder / "work"), plan_folder=folder, device="cpu")).report


def test_copies_in_a_release_are_found_by_every_attack(tmp_path: Path) -> None:
    report = audited(tmp_path, people(300, 1))
    found = {attack.name: attack for attack in report.attacks}
    assert {attack.status for attack in report.attacks} == {AttackStatus.RAN}
    for name in ("nearest_synthetic", "linkability", "released_copies"):
        low = found[name].measures["auc"].low
        assert low is not None
        assert low > 0.6, name
    assert found["singling_out"].measures["singling_out_advantage"].low > 0  # type: ignore[operator]
    assert found["synthetic_attribute_inference"].measures["guess_advantage"].low > 0.1  # type: ignore[operator]
    assert report.verdict is Status.LEAKS
    assert report.subject.model == "300 released records, no model"
    assert report.subject.accuracy_train is None
    assert "not measured" in render(report)


def test_a_release_of_other_people_is_not_flagged(tmp_path: Path) -> None:
    report = audited(tmp_path, people(300, 9))
    assert Status.LEAKS not in {finding.status for finding in report.findings}
    for attack in report.attacks:
        for name in ("auc", "guess_advantage", "singling_out_advantage"):
            if name in attack.measures:
                low = attack.measures[name].low
                assert low is not None
                assert low < (0.5 if name == "auc" else 0.0) + 1e-9, (attack.name, name)


def test_a_model_is_not_asked_for_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"\[released\] needs no other part of the plan: leave out model"):
        parse_plan(PLAN + '[model]\narchitecture = "mlp"\n')
    text = PLAN.replace('name = "linkability"', 'name = "loss_threshold"')
    for seed, name in enumerate(("members", "nonmembers", "population", "synthetic")):
        people(100, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    report = run_audit(
        parse_plan(text), RunContext(Workspace(tmp_path / "w"), plan_folder=tmp_path, device="cpu")
    ).report
    (left_out,) = [attack for attack in report.attacks if attack.name == "loss_threshold"]
    assert left_out.status is AttackStatus.NOT_APPLICABLE
    assert "logits" in str(left_out.reason)


def test_a_population_that_holds_candidates_is_refused(tmp_path: Path) -> None:
    for seed, name in enumerate(("members", "nonmembers", "population", "synthetic")):
        people(100, 0 if name == "population" else seed).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match="100 of 100 population records are also candidates"):
        run_audit(parse_plan(PLAN), RunContext(Workspace(tmp_path / "w"), plan_folder=tmp_path, device="cpu"))


SCHEME = """
title = "rows that a scheme releases"
seed = 3
[data]
source = "people.csv"
label = "job"
pool = 300
ranges = { age = [0, 100], pay = [0, 10000], hours = [0, 70] }
categories = { city = ["x", "y", "z"], home = ["own", "rent"] }
classes = ["no", "yes"]
[model]
architecture = "mlp"
[training]
epochs = 2
batch_size = 20
learning_rate = 0.1
[scheme]
name = "marginals"
epsilon = 1.0
tables = "two_way"
[[attacks]]
name = "nearest_synthetic"
[[attacks]]
name = "loss_threshold"
"""


def test_what_a_scheme_releases_is_attacked_beside_its_model(tmp_path: Path) -> None:
    people(400, 5).to_csv(tmp_path / "people.csv", index=False)
    context = RunContext(Workspace(tmp_path / "w"), plan_folder=tmp_path, device="cpu")
    report = run_audit(parse_plan(SCHEME), context).report
    about = {attack.name: attack.about for attack in report.attacks}
    assert about == {
        "nearest_synthetic": "synthetic rows that the scheme released",
        "loss_threshold": "the trained model",
    }
    nearest = report.attacks[0]
    assert nearest.status is AttackStatus.RAN
    assert nearest.control["auc"].value is not None  # the same tables without noise
    assert report.epsilons.proved is not None
    assert report.epsilons.proved.epsilon is not None
    assert 0.8 < report.epsilons.proved.epsilon <= 1.0  # fifteen tables of a fifteenth each, at delta 1e-5
    assert report.epsilons.shown is not None  # by who attacks the model, whose candidates were swapped by coins
    assert report.epsilons.shown.attack == "loss_threshold"
