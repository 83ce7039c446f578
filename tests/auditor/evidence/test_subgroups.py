"""Parts of the candidates: the right rows, compared within themselves, with intervals that hold together."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from attacks.membership.loss_threshold import LossThreshold
from attacks.protocol import MembershipScores
from attacks.target import Target
from auditor.evidence.membership import ScoredCandidates
from auditor.evidence.ranking import Ranking
from auditor.evidence.run_attack import Evidence
from auditor.evidence.subgroups import SMALLEST, check_slices, parts, slices
from auditor.subject import AttackTarget
from defenses.errors import PlanError
from defenses.records import Column, Image, Records, Table
from reports.records.report import AttackStatus

SEX, AGE = Column("sex", ("f", "m"), 0, 1, 0, 2), Column("age", (), 17, 90, 2, 1)


def people(n: int = 400) -> Records:
    rng = np.random.default_rng(0)
    sex = rng.integers(0, 2, n)
    x = np.column_stack([sex == 0, sex == 1, rng.random(n)]).astype(np.float32)
    return Records(x, rng.integers(0, 2, n), 2, Table((SEX, AGE), "income", ("low", "high")), name="people")


def evidence(scores: np.ndarray, included: np.ndarray, units: np.ndarray | None = None) -> Evidence:
    records = Records(
        np.zeros((len(scores), 1), np.float32), np.zeros(len(scores), np.int64), 2, Table((), "y", ()), owner=units
    )
    question = AttackTarget(Target(nn.Linear(1, 2), records, "d"), included)
    joined = ScoredCandidates(Ranking(scores, included, units))
    return Evidence(LossThreshold(), True, AttackStatus.RAN, question, claim=MembershipScores(scores), joined=joined)


def test_parts_are_the_rows_that_they_name() -> None:
    records = people()
    predicted = np.zeros(len(records), dtype=np.int64)
    found = {(by, value): mask for by, value, mask in parts(["class", "correct", "sex", "age"], records, predicted)}
    assert np.array_equal(found["class", "high"], records.y == 1)
    assert np.array_equal(found["correct", "label predicted right"], records.y == 0)
    assert np.array_equal(found["sex", "m"], records.x[:, 1] == 1)
    quarters = [mask for (by, _), mask in found.items() if by == "age"]
    assert np.array_equal(np.sum(quarters, axis=0), np.ones(len(records)))
    assert max(records.x[quarters[0], 2]) < min(records.x[quarters[3], 2])
    assert [mask.sum() for mask in quarters] == [100] * 4


def test_a_class_that_is_merely_easier_is_not_more_exposed() -> None:
    records, rng = people(2000), np.random.default_rng(1)
    included = rng.random(2000) < 0.5
    easier, exposed = records.y == 1, records.x[:, 1] == 1
    scores = rng.normal(size=2000) + 5.0 * easier + 2.0 * (exposed & included)
    chosen = parts(["class", "sex"], records, records.y)
    found = {(one.by, one.value): one for one in slices(evidence(scores, included), chosen, level=0.95)}
    low, high = (found["class", name].measures["auc"].value for name in ("low", "high"))
    assert low == pytest.approx(high, abs=0.06)
    assert found["sex", "m"].measures["auc"].low > 0.6
    assert found["sex", "f"].measures["auc"].low < 0.5 < found["sex", "f"].measures["auc"].high
    assert all(one.measures["auc"].level == pytest.approx(1 - 0.05 / 4) for one in found.values())
    assert sum(one.members + one.nonmembers for key, one in found.items() if key[0] == "sex") == 2000


def test_small_parts_and_groups_have_no_figure() -> None:
    records = people(60)
    included = np.arange(60) % 2 == 0
    few = np.zeros(60, dtype=bool)
    few[: 2 * SMALLEST - 2] = True
    assert slices(evidence(np.arange(60.0), included), [("class", "few", few)], level=0.9) == []
    enough = few | (np.arange(60) < 2 * SMALLEST)
    assert len(slices(evidence(np.arange(60.0), included), [("class", "enough", enough)], level=0.9)) == 1
    groups = evidence(np.arange(60.0), included, units=np.arange(60) // 2)
    assert slices(groups, parts(["class"], records, records.y), level=0.9) == []


@dataclass
class Spelled:
    name: str
    hint: str


@pytest.mark.parametrize("wrong", [Spelled("sexe", "'sex'"), Spelled("clas", "'class'")], ids=lambda one: one.name)
def test_an_unknown_column_is_named_with_the_nearest(wrong: Spelled) -> None:
    check_slices(["class", "correct", "sex", "age"], people())
    with pytest.raises(PlanError, match=wrong.hint):
        check_slices([wrong.name], people())
    image = Records(np.zeros((4, 1, 2, 2), dtype=np.float32), np.zeros(4, dtype=np.int64), 2, Image(), name="images")
    with pytest.raises(PlanError, match="no column of images"):
        check_slices(["sex"], image)
