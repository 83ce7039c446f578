"""What a report gives away: somebody with the model, many records and report.json looks for the exposed ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.protocol import MembershipScores
from auditor.audit import Audit, run_audit
from auditor.compare.plan import compare_plan
from auditor.compare.run import run_comparison
from auditor.context import RunContext
from auditor.evidence.exposed_records import EXPOSED, rounded_up
from auditor.files.paths import plan_without_paths, without_paths
from auditor.plan.plan import parse_plan
from auditor.reasons import reason
from auditor.statistics.membership import rate
from auditor.workspace import Workspace
from reports.parsing import parse_toml

OVERFIT = """
title = "overfit"
seed = 3
[data]
source = "digits"
pool = 400
[model]
architecture = "mlp"
[training]
epochs = 60
batch_size = 16
learning_rate = 0.1
[[attacks]]
name = "loss_threshold"
[control]
enabled = false
"""


@pytest.fixture(scope="module")
def overfit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return run_audit(parse_plan(OVERFIT), RunContext(Workspace(tmp_path_factory.mktemp("w")), device="cpu"))


def numbers(found: Any) -> set[float]:
    """Every number in a part of a report."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        return set().union(*map(numbers, found))
    return {float(found)} if isinstance(found, int | float) and not isinstance(found, bool) else set()


def test_no_number_of_a_report_is_the_score_of_a_record(overfit: Audit) -> None:
    (entry,) = overfit.evidence
    assert isinstance(entry.claim, MembershipScores)
    scores = set(entry.claim.scores.tolist())
    assert len(scores) > 300
    found = numbers(json.loads(overfit.report.to_json()))
    assert not {score for score in scores & found if score not in (0.0, 1.0, -1.0)}


def test_matching_scores_names_no_exposed_record(overfit: Audit) -> None:
    """Ten of ten were found while the report held their scores.

    Whoever runs the same attack still has its ranking, whatever the report says: that is the leak of the model. What
    the report adds is measured here: of the candidates that agree with a row of it, how many are that very record.
    """
    (entry,) = overfit.evidence
    (attack,) = overfit.report.attacks
    scores, included = entry.scores, entry.included
    rows = [json.loads(row.model_dump_json()) for row in attack.exposed]
    assert len(rows) == EXPOSED
    assert set(rows[0]) == {"record", "false_alarms_at_most", "level"}
    outside = np.sort(scores[~included])
    above = len(outside) - np.searchsorted(outside, scores, side="left")
    published = {row["false_alarms_at_most"] for row in rows}
    limits = np.array([rounded_up(_high(int(count), len(outside))) for count in above])
    agreeing = [int((limits == row["false_alarms_at_most"]).sum()) for row in rows]
    assert rows == sorted(rows, key=lambda row: row["record"])  # no order that tells of scores
    assert len(published) <= 3
    assert min(agreeing) >= 5  # several candidates agree with every row
    assert sum(1 / count for count in agreeing) <= 1  # right guesses of ten, each among the candidates that agree


def _high(above: int, total: int) -> float:
    high = rate(above, total, level=1 - 0.05 / EXPOSED).high
    assert high is not None
    return high


def test_the_digest_of_the_data_is_of_use_to_one_user_alone(
    overfit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan(OVERFIT.replace("epochs = 60", "epochs = 1"))
    digests = []
    for user, folder in (("one", "a"), ("two", "b"), ("one", "c")):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / user))
        found = run_audit(plan, RunContext(Workspace(tmp_path / folder), device="cpu"))
        digests.append(found.report.subject.data_digest)
    assert digests[0] == digests[2] != digests[1]
    (entry,) = overfit.evidence
    assert entry.question.target.candidates.digest not in overfit.report.to_json()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No such file: '/home/ada/My data/x.csv'", "No such file: 'x.csv'"),
        ("cannot open /home/ada/x.csv: denied", "cannot open x.csv: denied"),
        ("path=/tmp/a/b.npz, then /var/c/", "path=b.npz, then c"),
        ("file:///home/ada/x.csv", "x.csv"),
        (r"C:\\Users\\ada\\x.csv is gone", "x.csv is gone"),
        ("~/private/x.csv", "x.csv"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("3 records/second, and/or 1/2", "3 records/second, and/or 1/2"),
    ],
)
def test_paths_are_reduced_to_file_names(text: str, said: str) -> None:
    assert without_paths(text) == said


def test_a_plan_in_a_record_names_no_folder() -> None:
    plan = {
        "data": {"source": "/home/ada/x.csv"},
        "model": {"options": {"file": "/home/ada/w.pt"}},
        "canaries": "../s/c",
    }
    shown = {"data": {"source": "x.csv"}, "model": {"options": {"file": "w.pt"}}, "canaries": "c"}
    assert plan_without_paths(plan) == shown
    assert plan_without_paths({"values": (1, "/a/b/c")}) == {"values": [1, "c"]}


def test_a_comparison_names_no_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "pool.npz", x=rng.normal(size=(80, 4)).clip(-3, 3).astype("f4"), y=np.arange(80) % 2)
    text = OVERFIT.replace('"digits"', f'"{tmp_path}/pool.npz"\nvalue_range = [-3.0, 3.0]').replace(
        "pool = 400", "pool = 80"
    )
    text = text.replace("epochs = 60", "epochs = 1") + '[[schemes]]\nname = "none"\n'
    plan = compare_plan(parse_toml(text, what="the plan", error=AssertionError))
    found = run_comparison(plan, RunContext(Workspace(tmp_path / "w"), device="cpu"), tmp_path / "out")
    assert found.plan["data"]["source"] == "pool.npz"
    for file in (tmp_path / "out").rglob("report.*"):
        assert str(tmp_path) not in file.read_text()
    assert str(tmp_path) not in found.to_json()


def test_the_reason_of_a_failure_is_short_and_names_no_folder() -> None:
    said = reason(RuntimeError("cannot open /home/ada/w.pt\x1b[31m " + "x" * 5000))
    assert said.startswith("RuntimeError: cannot open w.pt\\x1b[31m")
    assert len(said) <= 500
    assert reason(OSError(28, "No space left on device", "/a/b")) == "OSError: the disk is full"
    assert "memory" in reason(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"))
    assert reason(PermissionError(13, "Permission denied", "/home/ada/x")) == "PermissionError: Permission denied: x"
