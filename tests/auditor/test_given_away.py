"""What a report gives away: somebody with the model, many records and report.json looks for the exposed ones."""

import json
from typing import Any

import numpy as np
import pytest

from attacks.protocol import MembershipScores
from auditor.audit import Audit, run_audit
from auditor.exposed import EXPOSED, rounded_up
from auditor.plan import parse_plan
from auditor.setting import Setting
from auditor.workplace import Workplace

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
    return run_audit(parse_plan(OVERFIT), Setting(Workplace(tmp_path_factory.mktemp("w")), device="cpu"))


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
    from auditor.metrics import rate

    high = rate(above, total, level=1 - 0.05 / EXPOSED).high
    assert high is not None
    return high
