"""A kind of claim is one file: whoever handles claims asks the kind."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest

from attacks.protocol import Attack, Claim
from attacks.threat_model import ThreatModel
from attacks.view import View
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.evidence.claim_kind import ClaimKind, Joined, claim_kinds
from auditor.plan.plan import parse_plan
from auditor.workspace import Workspace
from reports import measures
from reports.records.report import AttackStatus, Estimate, Status

PLAN = """
title = "a kind of its own"
seed = 1
shadows = 2
[data]
source = "digits"
pool = 60
[model]
architecture = "mlp"
options = { hidden = [4] }
[training]
epochs = 1
batch_size = 16
learning_rate = 0.1
[control]
enabled = false
[[attacks]]
name = "head_count"
[[limits]]
measure = "count_error"
maximum = 0.4
"""


def test_every_claim_of_the_protocol_has_a_kind() -> None:
    assert set(claim_kinds()) == set(get_args(Claim))


@dataclass(frozen=True)
class Count:
    """How many members there are."""

    values: np.ndarray[Any, np.dtype[np.float64]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counted(Joined):
    error: float

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        return {
            "count_error": Estimate(
                value=self.error, low=self.error - 0.01, high=self.error + 0.01, level=level, method="", n=60
            )
        }

    @property
    def remarks(self) -> list[str]:
        return ["Counted."]


class CountKind(ClaimKind):
    claims = Count
    name = "count"
    title = "Number of members"
    words = "counting"

    def join(self, claim: Count, question: Any, *, attack: Attack, rng: np.random.Generator, device: str) -> Counted:
        return Counted(abs(float(claim.values[0]) - question.included.sum()) / len(question.included))


@dataclass(frozen=True)
class HeadCount(Attack):
    name: ClassVar[str] = "head_count"
    title: ClassVar[str] = "Head count"
    paper: ClassVar[str] = "none"
    claims: ClassVar[type] = Count
    requires: ThreatModel = field(default=ThreatModel(frozenset()))

    def run(self, view: View, *, rng: np.random.Generator, on_progress: Any = None) -> Count:
        RUNS.append(1)
        return Count(np.array([len(view.candidates) / 2]))


RUNS: list[int] = []


def test_a_new_kind_goes_through_an_audit_without_another_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = measures.Measure(
        name="count_error", title="Error of the count", meaning="", scale=measures.Scale.SHARE, baseline=0.0,
        largest=1.0, short="error of the count", claims=frozenset({"count"}),
    )  # fmt: skip
    monkeypatch.setitem(measures._NAMED, "count_error", about)
    monkeypatch.setitem(claim_kinds(), Count, CountKind())
    monkeypatch.setattr("auditor.plan.resolve.registered_attacks", lambda: {"head_count": HeadCount})
    RUNS.clear()
    context = RunContext(Workspace(tmp_path), device="cpu")
    for _ in range(2):  # the second time the claim is kept
        report = run_audit(parse_plan(PLAN), context).report
        (attack,) = report.attacks
        assert attack.status is AttackStatus.RAN, attack.reason
        assert attack.notes == ["Counted."]
        (finding,) = [finding for finding in report.findings if finding.code == "PA010"]
        assert finding.title == "Number of members, Head count"
        assert finding.status is Status.WITHIN
        assert "Error of the count is" in finding.sentence
        assert any("It measures counting, nothing else." in spot for spot in report.blind_spots)
    assert RUNS == [1]
