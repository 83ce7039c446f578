"""Reconstructions in an audit: copies are found, class means are not, and the report says what would have been seen."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.target import Target
from attacks.threat_model import ThreatModel
from attacks.view import View
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.evidence.reconstruction_comparison import compare, flagged, in_words
from auditor.evidence.run_attack import gather
from auditor.plan.plan import parse_plan
from auditor.subject import AttackTarget
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.progress import OnProgress, silent
from defenses.records import Image, Records
from reports.pages.report_page import render
from reports.records.report import AttackStatus, Report

N = 400


@dataclass(frozen=True)
class Says(Attack):
    """An attack that says what it is told to."""

    what: tuple[float, ...] = ()

    name = "says"
    title = "Says"
    paper = "none"
    requires = ThreatModel(frozenset({Capability.WEIGHTS}), candidates=False)
    made = np.zeros((0, 1, 8, 8), np.float32)

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        return Reconstructions(type(self).made)


def faces(seed: int = 0) -> tuple[Records, np.ndarray]:
    """Images around four class means, and who was in."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, N)
    means = np.random.default_rng(9).random((4, 1, 8, 8))
    x = np.clip(means[y] + 0.15 * rng.normal(size=(N, 1, 8, 8)), 0, 1).astype(np.float32)
    return Records(x, y, 4, Image()), rng.random(N) < 0.5


def gathered(made: np.ndarray, records: Records, included: np.ndarray):  # type: ignore[no-untyped-def]
    model = Architecture("mlp").build((1, 8, 8), 4, seed=0)
    kind = type("Made", (Says,), {"made": made.astype(np.float32)})
    question = AttackTarget(Target(model, records, "d"), included)
    return gather(kind(), question, required=True, rng=np.random.default_rng(0), device="cpu")


def test_copies_become_scores_that_find_the_records() -> None:
    records, included = faces()
    copied = np.flatnonzero(included)[:40]
    entry = gathered(records.x[copied], records, included)
    assert entry.status is AttackStatus.RAN
    assert set(np.argsort(-entry.scores)[:40]) == set(copied)
    assert flagged(entry.joined.compared.leakage)
    assert entry.joined.compared.leakage.copy_rate == 1.0
    assert "100% are nearest to a training record where" in " ".join(in_words(entry.joined.compared))


def test_class_means_are_alike_to_everybody_and_flagged_by_nothing() -> None:
    records, included = faces()
    means = np.stack([records.x[records.y == label].mean(axis=0) for label in range(4)])
    entry = gathered(np.repeat(means, 25, axis=0), records, included)
    assert entry.scores.mean() > 0.6  # they look like everybody ...
    assert not flagged(entry.joined.compared.leakage)  # ... and so like nobody
    assert entry.joined.compared.least_seen in (0.03, 0.1)


def test_a_comparison_that_would_see_nothing_says_so() -> None:
    records, included = faces()
    few = Reconstructions(faces(seed=5)[0].x[:4])
    found = compare(few, records.take(np.arange(30)), included[:30], rng=np.random.default_rng(0))
    assert not flagged(found.leakage)
    assert found.least_seen is None
    assert "silence here says nothing" in in_words(found)[-1]


def test_another_shape_is_a_failed_attack_and_no_crash() -> None:
    records, included = faces()
    entry = gathered(np.zeros((3, 1, 4, 4)), records, included)
    assert entry.status is AttackStatus.FAILED
    assert "alike" in str(entry.reason)
    with pytest.raises(ValueError, match="'gower' does not fit"):
        compare(Reconstructions(records.x[:3]), records, included, rng=np.random.default_rng(0), measure="gower")


@pytest.mark.parametrize(
    ("x", "message"), [(np.zeros((0, 2)), "no reconstructions"), (np.full((2, 2), np.nan), "2 of 2")]
)
def test_a_claim_is_finite_and_not_empty(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reconstructions(x.astype(np.float32))


def test_an_audit_reports_model_inversion_beside_membership(tmp_path: Path) -> None:
    plan = parse_plan(
        'title = "t"\nseed = 1\n[data]\nsource = "digits"\npool = 300\n[model]\narchitecture = "mlp"\n[training]\n'
        'epochs = 20\nbatch_size = 20\nlearning_rate = 0.05\nmomentum = 0.9\n[[attacks]]\nname = "model_inversion"\n'
        '[[attacks]]\nname = "loss_threshold"\n[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n'
    )
    report = run_audit(plan, RunContext(Workspace(tmp_path), device="cpu")).report
    found = {attack.name: attack for attack in report.attacks}["model_inversion"]
    assert found.copies is not None
    assert found.copies.reconstructions == 40
    assert found.copies.similarity == "normalised cross-correlation"
    assert "training recipe" not in found.access
    assert any("are nearest to a training record" in note for note in found.notes)
    assert any("reconstruction and membership inference, nothing else" in spot for spot in report.blind_spots)
    assert "are nearest to a training record" in render(report)
    assert Report.from_json(report.to_json().encode()) == report


def test_people_are_one_unit_whatever_their_photographs() -> None:
    records, included = faces()
    owned = replace(records, owner=np.arange(N) // 10)
    whole = np.repeat(included[::10], 10)
    found = compare(Reconstructions(records.x[:5]), owned, whole, rng=np.random.default_rng(0))
    assert sum(found.leakage.units) == N // 10


def test_what_would_have_been_seen_does_not_hang_on_one_draw() -> None:
    """Twenty reconstructions of noise: whatever seed plants the copies, the same least share is told."""
    records, included = faces()
    made = np.random.default_rng(5).random((20, 1, 8, 8)).astype(np.float32)
    told = {
        compare(Reconstructions(made), records, included, rng=np.random.default_rng(seed)).least_seen
        for seed in range(6)
    }
    assert len(told) <= 2
    assert 0.01 not in told  # one of twenty is a twentieth
    assert told <= {None, 0.05, 0.1}


def test_class_means_do_not_know_the_candidate_that_they_are_compared_with() -> None:
    """Noise, each member in a class of its own: a mean over the record itself would be the record."""
    rng = np.random.default_rng(1)
    x = rng.random((120, 1, 8, 8)).astype(np.float32)
    included = np.arange(120) < 60
    y = np.where(included, np.arange(120), 60)
    records = Records(x, y.astype(np.int64), 61, Image())
    found = compare(Reconstructions(x[:1] * 0), records, included, rng=rng)
    assert found.class_means < 0.75
