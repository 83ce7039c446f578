"""Generators as targets: their samples are attacked like released records, and what they are not is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.plan.plan import Plan, parse_plan
from auditor.targets.generator_samples import draw_samples
from auditor.workspace import Workspace
from defenses.errors import PlanError
from defenses.records import Column, Image, Records, Table
from reports.records.report import Report, Status

PLAN = """
title = "t"
[released]
{release}
members = {{source = "members.npz"}}
nonmembers = {{source = "others.npz"}}
[[attacks]]
name = "released_copies"
[[attacks]]
name = "nearest_synthetic"
[[limits]]
measure = "auc"
maximum = 0.6
"""
COUNT, CLASSES = 120, 4


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((COUNT, 1, 8, 8)).astype(np.float32), rng.integers(CLASSES, size=COUNT)


def copies() -> Callable[..., Any]:
    return lambda count, *, seed: tuple(part[:count] for part in pictures(1))


def unnamed_copies() -> Callable[..., Any]:
    return lambda count, *, seed: torch.from_numpy(pictures(1)[0][:count]).requires_grad_()


def strangers() -> Callable[..., Any]:
    return lambda count, *, seed: np.random.default_rng(seed).random((count, 1, 8, 8))


def broken_factory() -> Callable[..., Any]:
    raise OSError("no weights")


def makes_text() -> str:
    return "text"


def plan_of(name: str, *, samples: int = COUNT) -> Plan:
    return parse_plan(PLAN.format(release=f'generator = "{name}"\nsamples = {samples}'))


def own(factory: Callable[..., Any]) -> str:
    return f"{__name__}:{factory.__name__}"


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    for name, seed in (("members", 1), ("others", 2), ("released", 1)):
        x, y = pictures(seed)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    return RunContext(Workspace(tmp_path / "w"), plan_folder=tmp_path, device="cpu", allow_code=True)


def found(report: Report) -> dict[str, float | None]:
    return {attack.name: attack.measures["auc"].value for attack in report.attacks}


def test_a_generator_of_copies_is_found_like_released_copies(context: RunContext) -> None:
    report = run_audit(plan_of(own(copies)), context).report
    released = run_audit(parse_plan(PLAN.format(release='synthetic = {source = "released.npz"}')), context).report
    assert report.verdict is Status.LEAKS
    assert found(report) == found(released)
    assert report.subject.model == "120 released records, no model"


def test_a_generator_of_strangers_is_not_flagged(context: RunContext) -> None:
    report = run_audit(plan_of(own(strangers)), context).report
    assert Status.LEAKS not in {finding.status for finding in report.findings}
    assert all(auc is not None and abs(auc - 0.5) < 0.15 for auc in found(report).values())


def test_samples_without_labels_are_compared_without_them(context: RunContext) -> None:
    def target(factory: Callable[..., Any]) -> Any:
        plan = plan_of(own(factory))
        return plan.target.build(plan, context).target

    named, unnamed = target(copies), target(unnamed_copies)
    assert len(np.unique(named.candidates.y)) == len(np.unique(named.synthetic.y)) == CLASSES
    assert not unnamed.candidates.y.any()
    assert not unnamed.synthetic.y.any()
    assert np.array_equal(named.synthetic.x, unnamed.synthetic.x)
    assert found(run_audit(plan_of(own(unnamed_copies)), context).report)["nearest_synthetic"] == 1.0


def test_the_plan_says_which_samples_are_drawn(context: RunContext) -> None:
    def drawn(samples: int) -> np.ndarray:
        plan = plan_of(own(strangers), samples=samples)
        synthetic = plan.target.build(plan, context).target.synthetic
        assert synthetic is not None
        return synthetic.x

    assert np.array_equal(drawn(30), drawn(30))
    assert not np.array_equal(drawn(30), drawn(31)[:30])
    assert drawn(31).shape == (31, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.at.all:factory", "cannot be imported"),
        (f"{__name__}:nothing", "cannot be imported"),
        ("factory", "the form is package.module:factory"),
        (f"{__name__}:COUNT", "is int; give a factory"),
        (own(broken_factory), "cannot be made: OSError: no weights"),
        (own(makes_text), "returned str; a factory returns what can be called"),
    ],
)
def test_what_is_no_generator_is_refused(name: str, says: str, context: RunContext) -> None:
    with pytest.raises(PlanError, match=says):
        run_audit(plan_of(name), context)


def test_code_runs_only_where_it_is_allowed(context: RunContext) -> None:
    with pytest.raises(PlanError, match="give --allow-code if you trust it"):
        run_audit(plan_of(own(broken_factory)), replace(context, allow_code=False))


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("", "give either synthetic"),
        ('generator = "a:b"\nsamples = 50\nsynthetic = {source = "released.npz"}', "give either synthetic"),
        ('generator = "a:b"', "generator and samples"),
        ('synthetic = {source = "released.npz"}\nsamples = 50', "generator and samples"),
        ('generator = "a:b"\nsamples = 9', "greater than or equal to 10, not 9"),
    ],
)
def test_plans_that_say_too_little_or_too_much(release: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        parse_plan(PLAN.format(release=release))


IMAGES = Records(np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64), CLASSES, Image(), name="members")
COLUMNS = (Column("age", (), 0, 100, 0, 1), Column("city", ("x", "y"), 0, 1, 1, 2))
ROWS = Records(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), 2, Table(COLUMNS, "job", ("no", "yes")))
GOOD = np.full((20, 1, 8, 8), 0.5)
FRAME = pd.DataFrame({"age": range(20), "city": ["x", "y"] * 10, "job": ["no", "yes"] * 10})


@pytest.mark.parametrize(
    ("made", "like", "says"),
    [
        (GOOD[:19], IMAGES, r"shape \(19, 1, 8, 8\); 20 records like members have \(20, 1, 8, 8\)"),
        (GOOD[:, :, :4], IMAGES, r"shape \(20, 1, 4, 8\)"),
        (np.where(np.arange(20).reshape(-1, 1, 1, 1) < 3, np.nan, GOOD), IMAGES, "3 of 20 samples .* not finite"),
        (GOOD * 1e300, IMAGES, "20 of 20 samples .* not finite"),  # in float32, which records are kept in
        (GOOD * 255, IMAGES, r"from 127.5 to 127.5; those of members lie in \[0, 1\]"),
        (np.full((20, 3), 35.0), ROWS, r"from 35 to 35; those of records lie in \[0, 1\]"),
        (GOOD.astype(str), IMAGES, "return real numbers"),
        (None, IMAGES, r"shape \(\)"),
        ([[1.0], [1.0, 2.0]], IMAGES, "samples that are no array"),
        ((GOOD, np.zeros(19, np.int64)), IMAGES, r"labels of shape \(19,\)"),
        ((GOOD, np.zeros(20)), IMAGES, "type float64; return 20 whole numbers"),
        ((GOOD, np.full(20, CLASSES)), IMAGES, "labels from 4 to 4; classes are 0 to 3"),
        (FRAME, IMAGES, "returned rows of a table"),
        (FRAME[:10], ROWS, "returned 10 rows where 20"),
        (FRAME.drop(columns="age"), ROWS, "column 'age' is missing"),
        (FRAME.assign(city="z"), ROWS, "holds 'z' in record 0"),
        (FRAME.assign(age=np.nan), ROWS, "holds no number in record 0"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(made: object, like: Records, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        draw_samples(lambda count, *, seed: made, like=like, count=20, seed=0)


def test_a_generator_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(PlanError, match=r"failed at sample\(20, seed=7\): TypeError"):
        draw_samples(lambda count: GOOD, like=IMAGES, count=20, seed=7)


def test_rows_of_a_table_are_encoded_like_the_members() -> None:
    rows, labelled = draw_samples(lambda count, *, seed: FRAME, like=ROWS, count=20, seed=0)
    np.testing.assert_allclose(rows.x[3], [0.03, 0, 1], atol=1e-7)
    assert rows.y.tolist() == [0, 1] * 10
    assert labelled
    bare, labelled = draw_samples(lambda count, *, seed: FRAME.drop(columns="job"), like=ROWS, count=20, seed=0)
    assert np.array_equal(bare.x, rows.x)
    assert not labelled
    assert not bare.y.any()


def test_features_that_were_standardised_have_no_bounds() -> None:
    wide, made = replace(ROWS, x=ROWS.x - 2), np.full((20, 3), 35.0)
    assert (draw_samples(lambda count, *, seed: made, like=wide, count=20, seed=0)[0].x == 35).all()


def test_torchs_own_randomness_is_repeatable_and_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again = (
        draw_samples(lambda count, *, seed: torch.rand(count, 1, 8, 8), like=IMAGES, count=20, seed=seed)[0].x
        for seed in (3, 3)
    )
    assert np.array_equal(first, again)
    assert torch.equal(torch.rand(3), expected)
