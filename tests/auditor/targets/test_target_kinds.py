"""A kind of target is one file: a model of no library at all is found, planned, audited and reported."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import auditor.targets
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.plan.plan import Plan, TargetPlan, parse_plan, target_kinds
from auditor.plan.target_kinds import discovered
from auditor.workspace import Workspace
from defenses.errors import PlanError
from reports.records.report import AttackStatus, Status

FILE = '''
"""A model that looks records up: it is sure of those that it holds, and of no other."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.target import Target
from auditor.plan.plan import TargetPlan
from auditor.plan.sections import Source
from auditor.subject import AuditSubject, Description, OnTrust
from auditor.targets.labelled_candidates import load_sides, mixed
from defenses.schemes.none import NoDefense


@dataclass(frozen=True)
class Lookup:
    labels: dict
    classes: int
    sure: float

    def logits(self, x):
        answers = np.zeros((len(x), self.classes))
        for row, answer in zip(x, answers):
            if row.tobytes() in self.labels:
                answer[self.labels[row.tobytes()]] = self.sure
        return answers


class LookupTarget(TargetPlan):
    name: ClassVar[str] = "lookup"

    members: Source
    nonmembers: Source
    sure: float = 3.0

    def build(self, plan, context):
        sides = load_sides(self.members, self.nonmembers, None, context)
        given = mixed(sides, classes=sides.classes)
        rows = (row.tobytes() for row in sides.members.x)
        model = Lookup(dict(zip(rows, sides.members.y)), sides.classes, self.sure)
        return AuditSubject(
            target=Target(model, given.candidates, digest="lookup"),
            split=given.split,
            defense=NoDefense(),
            scheme="not stated",
            claimed=None,
            proved=None,
            store=context.workspace.store(),
            description=Description(
                called=f"a table of {len(model.labels)} records",
                on_trust=(OnTrust("That nobody wrote to the table."),),
                limitations=("It does not show who reads the table.",),
            ),
            control_reason="a table is not trained",
        )
'''

PLAN = """
title = "a table"
attacks = [{ name = "loss_threshold" }, { name = "gradient_norm" }, { name = "lira" }]
[[limits]]
measure = "auc"
maximum = 0.7
attack = "loss_threshold"
[lookup]
members = { source = "in.npz" }
nonmembers = { source = "out.npz" }
"""


@pytest.fixture
def lookup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put one file into the folder of targets, and records beside the plan."""
    rng, folder = np.random.default_rng(0), tmp_path / "targets"
    folder.mkdir()
    (folder / "lookup.py").write_text(FILE)
    for name in ("in", "out"):
        np.savez(tmp_path / f"{name}.npz", x=rng.random((60, 3)).astype(np.float32), y=np.arange(60) % 2)
    monkeypatch.setattr(auditor.targets, "__path__", [*auditor.targets.__path__, str(folder)])
    discovered.cache_clear()
    yield tmp_path
    discovered.cache_clear()
    sys.modules.pop("auditor.targets.lookup", None)


def test_a_new_kind_of_target_is_one_file(lookup: Path) -> None:
    report = run_audit(parse_plan(PLAN), RunContext(Workspace(lookup / "work"), lookup, device="cpu")).report
    by_name = {entry.name: entry for entry in report.attacks}
    assert by_name["loss_threshold"].measures["auc"].value == 1.0  # it is sure of members alone
    assert report.verdict is Status.LEAKS
    assert by_name["gradient_norm"].status is AttackStatus.NOT_APPLICABLE
    assert "needs weights, which this audit does not have" in str(by_name["gradient_norm"].reason)
    assert "the training recipe" in str(by_name["lira"].reason)
    assert report.subject.model == "a table of 60 records"
    assert report.trusted[0].what == "That nobody wrote to the table."
    assert "It does not show who reads the table." in report.blind_spots
    assert report.provenance.plan["lookup"]["sure"] == 3.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[lookup]", "[lookap]"), "'lookap' is unknown; did you mean 'lookup'"),
        (("nonmembers =", "nonmember ="), "'lookup.nonmember' is unknown; did you mean 'nonmembers'"),
        (("[lookup]", "[lookup]\nsure = 'x'"), "lookup.sure: .*valid number"),
        (("[lookup]", "[training]\nepochs = 1\nbatch_size = 1\nlearning_rate = 1\n[lookup]"), "leave out training"),
        (("[lookup]", "[scores]\npath = 'x'\n[lookup]"), r"exactly one of .*\[released\] and \[lookup\]"),
    ],
)
def test_a_bad_plan_of_a_new_kind_is_refused_in_the_same_words(
    change: tuple[str, str], words: str, lookup: Path
) -> None:
    with pytest.raises(PlanError, match=words):
        parse_plan(PLAN.replace(*change))


def test_plans_of_other_kinds_keep_their_digests_when_a_kind_is_added(lookup: Path) -> None:
    text = 'title = "t"\n[scores]\npath = "x"'
    more = parse_plan(text)
    with_lookup = more.digest, more.subject_digest
    discovered.cache_clear()
    auditor.targets.__path__.pop()
    assert "lookup" not in target_kinds()
    fewer = parse_plan(text)
    assert (fewer.digest, fewer.subject_digest) == with_lookup


@pytest.mark.parametrize("name", sorted(target_kinds()))
def test_every_kind_says_what_it_is(name: str) -> None:
    kind = target_kinds()[name]
    assert issubclass(kind, TargetPlan)
    assert kind.uses <= set(Plan.model_fields)
    assert not set(kind.model_fields) & {"name", "uses"}
