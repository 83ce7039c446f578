"""What is attacked beside the trained model: gradients that participants send, and a generator trained alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.gradient_leakage.shared_gradients import deviation_of_noise
from attacks.target import Target
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.datasets import placeholder_records as drawing
from auditor.plan.plan import parse_plan
from auditor.plan.sections import Gradients
from auditor.subject import AttackTarget
from auditor.targets.gradient_updates import transcript
from auditor.workspace import Workspace
from defenses.architectures import Architecture
from defenses.errors import PlanError
from defenses.gradients import ClippedGaussian
from defenses.records import Column, Image, Records, Table
from reports.pages.report_page import render
from reports.records.report import AttackResult, AttackStatus, Report, Status

BASE = """
title = "t"
seed = 1
[data]
source = "digits"
pool = 400
[model]
architecture = "mlp"
options = {{ hidden = [32] }}
[training]
epochs = 3
batch_size = 20
learning_rate = 0.1
{scheme}
[gradients]
victims = 20
precision = "float64"
{more}
[[attacks]]
name = "first_layer"
[[attacks]]
name = "label_inference"
[[limits]]
measure = "auc"
maximum = 0.6
[[limits]]
measure = "guess_advantage"
maximum = 0.3
"""
PRIVATE = '[scheme]\nname = "dp_sgd"\nnoise_multiplier = 2.0\n'


def audited(text: str, folder: Path, *, include_records: bool = False) -> Report:
    context = RunContext(Workspace(folder), device="cpu", include_records=include_records)
    return run_audit(parse_plan(text), context).report


def results(report: Report) -> dict[str, AttackResult]:
    return {attack.name: attack for attack in report.attacks}


def test_plain_gradients_give_their_records_away(tmp_path: Path) -> None:
    report = audited(BASE.format(scheme="", more=""), tmp_path)
    first = results(report)["first_layer"]
    assert first.status is AttackStatus.RAN
    assert first.about == "gradients that participants send"
    assert first.measures["auc"].value == 1
    assert first.measures["tpr_at_fpr_0.01"].value == 1  # 300 others resolve 1%
    assert any("100% are nearer to their own record" in note for note in first.notes)
    labels = results(report)["label_inference"]
    assert labels.measures["guess_accuracy"].value == 1
    assert {(finding.attack, finding.measure, finding.status) for finding in report.findings} == {
        ("first_layer", "auc", Status.LEAKS),
        ("label_inference", "guess_advantage", Status.LEAKS),
    }
    assert not any("guess" in name for name in first.measures)


def test_the_scheme_protects_what_is_sent_and_the_control_shows_the_sight(tmp_path: Path) -> None:
    report = audited(BASE.format(scheme=PRIVATE, more=""), tmp_path)
    first = results(report)["first_layer"]
    assert first.control["auc"].value == 1
    low, high = first.measures["auc"].low, first.measures["auc"].high
    assert low is not None
    assert high is not None
    assert low < 0.6
    assert first.measures["auc"].value < 0.75  # type: ignore[operator]


def test_noise_alone_is_a_protection_with_a_control(tmp_path: Path) -> None:
    report = audited(BASE.format(scheme="", more="noise = 1.0\nclip = 1.0"), tmp_path)
    first = results(report)["first_layer"]
    assert first.control["auc"].value == 1
    assert first.measures["auc"].value < 0.75  # type: ignore[operator]


def test_without_leave_the_gallery_shows_drawn_canaries_only(tmp_path: Path) -> None:
    report = audited(BASE.format(scheme="", more=""), tmp_path)
    assert report.gallery
    assert all(item.synthetic for item in report.gallery)
    assert "no private record is shown" in render(report)
    shown = audited(BASE.format(scheme="", more=""), tmp_path, include_records=True)
    assert len(shown.gallery) == 8
    assert not any(item.synthetic for item in shown.gallery)
    assert min(item.similarity_training for item in shown.gallery) > 0.99
    assert "private records themselves" in render(shown)
    assert shown.verdict == report.verdict


def test_claims_are_kept_and_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE.format(scheme="", more="")
    first = audited(text, tmp_path)
    from attacks.gradient_leakage.first_layer import FirstLayer

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr(FirstLayer, "run", fail)
    again = audited(text, tmp_path)
    assert results(again)["first_layer"] == results(first)["first_layer"]
    other = audited(text.replace("victims = 20", "victims = 21"), tmp_path)
    assert results(other)["first_layer"].status is AttackStatus.FAILED  # another transcript is another claim
    for path in (tmp_path / "claims").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        path.write_bytes(b"torn")
    assert results(audited(text, tmp_path))["first_layer"].status is AttackStatus.FAILED  # it is made anew


def test_where_a_class_is_a_person_others_are_of_other_classes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((200, 1, 8, 8)).astype(np.float32)
    person = np.arange(200) // 10
    records = Records(x, person, 20, Image(), owner=person)
    included = person % 2 == 0
    question = AttackTarget(Target(Architecture("mlp").build((1, 8, 8), 20, seed=0), records, "d"), included)
    asked = transcript(
        question, Gradients(victims=10, weights="end"), None, RunContext(Workspace(tmp_path), device="cpu"), seed=0
    )
    taken = asked.target.candidates
    assert asked.victims is not None
    assert asked.included.sum() == 10
    assert asked.included[asked.victims.reshape(-1)].all()
    assert (~asked.included).sum() > 50
    assert not np.isin(taken.y[~asked.included], taken.y[asked.included]).any()


def test_more_victims_than_members_are_refused(tmp_path: Path) -> None:
    text = BASE.format(scheme="", more="").replace("victims = 20", "victims = 500")
    with pytest.raises(PlanError, match="500 victims with 1 records each need 500 members"):
        audited(text, tmp_path)


def test_gradients_that_no_attack_reads_are_refused(tmp_path: Path) -> None:
    text = BASE.format(scheme="", more="").partition("[[attacks]]")[0] + '[[attacks]]\nname = "loss_threshold"\n'
    with pytest.raises(PlanError, match=r"\[gradients\] has no effect"):
        audited(text, tmp_path)


def test_local_steps_and_a_scheme_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="local_steps is 3"):
        audited(BASE.format(scheme=PRIVATE, more="local_steps = 3"), tmp_path)


GENERATOR = """
title = "t"
seed = 1
[data]
source = "digits"
pool = 100
[model]
architecture = "mlp"
options = {{ hidden = [16] }}
[training]
epochs = 2
batch_size = 20
learning_rate = 0.1
{scheme}
[generator]
samples = 200
steps = 400
[[attacks]]
name = "released_copies"
[[limits]]
measure = "auc"
maximum = 0.9
"""


@pytest.mark.slow
def test_a_generator_of_few_records_repeats_them_and_a_private_one_does_not(tmp_path: Path) -> None:
    leaky = audited(GENERATOR.format(scheme=""), tmp_path)
    found = results(leaky)["released_copies"]
    assert found.about.startswith("samples of a DCGAN")
    area, copies = found.measures["auc"], found.copies
    assert area.low is not None
    assert area.low > 0.5
    assert copies is not None
    assert copies.least_seen is not None
    private = audited(GENERATOR.format(scheme=PRIVATE.replace("2.0", "20.0")), tmp_path)  # at 2 it still leaks
    if "released_copies" in results(private) and results(private)["released_copies"].status is AttackStatus.RAN:
        assert results(private)["released_copies"].measures["auc"].low < 0.5  # type: ignore[operator]
    else:
        assert any("collapsed" in spot for spot in private.blind_spots)


def test_drawn_records_look_like_records_and_are_nobodys() -> None:
    rng = np.random.default_rng(0)
    image = Records(np.full((1, 3, 12, 10), 7.0, np.float32), np.zeros(1, np.int64), 5, Image(-1, 2))
    made = drawing.drawn(image, 6, rng=rng)
    assert made.x.shape == (6, 3, 12, 10)
    assert made.x.min() >= -1
    assert made.x.max() <= 2
    assert len(np.unique(made.x.reshape(6, -1), axis=0)) == 6
    colour = Column("colour", ("r", "g"), 0, 1, 0, 2)
    table = Records(np.zeros((1, 3), np.float32), np.zeros(1, np.int64), 2, Table((colour,), "y", ("a", "b")))
    rows = drawing.drawn(table, 20, rng=rng)
    assert np.array_equal(rows.x[:, :2].sum(axis=1), np.ones(20))


def test_the_noise_of_any_rule_is_told_to_the_attacker() -> None:
    """What is measured of a rule that is not plain DP-SGD's equals what DP-SGD's is stated to be."""
    model = Architecture("mlp", {"hidden": [32]}).build((6,), 3, seed=0)
    x, y = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 4, dtype=torch.long)
    found = deviation_of_noise(model, x, y, ClippedGaussian(0.5, 3.0), seed=1)
    assert found == pytest.approx(0.5 * 3.0 / 4, rel=0.1)
    assert deviation_of_noise(model, x, y, ClippedGaussian(0.5, 0.0), seed=1) == 0
