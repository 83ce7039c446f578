"""Guesses, copies of a model and predicates, joined with the truth."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from attacks.capabilities import Capability
from attacks.protocol import Attack, Claim, ExtractedModel, Guesses, Predicates, Stolen
from attacks.target import Target
from attacks.threat_model import LABEL, ThreatModel
from attacks.view import View
from auditor.evidence.attribute_inference import hidden_values, join_guesses
from auditor.evidence.run_attack import gather
from auditor.evidence.singling_out import join_predicates
from auditor.subject import AttackTarget
from defenses.progress import OnProgress, silent
from defenses.records import Column, IntArray, Records, Table
from reports.records.report import AttackStatus, Estimate

N = 600
SEX, AGE = Column("sex", ("f", "m"), 0, 1, 0, 2), Column("age", (), 17, 90, 2, 1)


def people(owner: IntArray | None = None) -> tuple[Records, np.ndarray]:
    rng = np.random.default_rng(0)
    sex = rng.integers(0, 2, N)
    x = np.column_stack([sex == 0, sex == 1, rng.random(N)]).astype(np.float32)
    y = rng.integers(0, 2, N)
    return Records(x, y, 2, Table((SEX, AGE), "income", ("low", "high")), owner=owner), rng.random(N) < 0.5


def bounds(found: Estimate) -> tuple[float, float, float]:
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.value, found.high


def joined(values: np.ndarray, without: np.ndarray, hidden: str = "sex", owner: IntArray | None = None):  # type: ignore[no-untyped-def]
    records, included = people(owner)
    target = Target(nn.Linear(3, 2), records, "d")
    claim = Guesses(values.astype(np.int64), without.astype(np.int64), hidden)
    return join_guesses(claim, target, included, None).measures(level=0.95), included


def test_what_is_guessed_without_the_target_counts_for_nothing() -> None:
    records, _ = people()
    truth = hidden_values(records, "sex")
    found, _ = joined(truth, truth)
    assert found["guess_accuracy"].value == found["guess_accuracy_without_target"].value == 1
    low, value, high = bounds(found["guess_advantage"])
    assert value == 0
    assert low < 0 < high


def test_a_target_that_tells_only_of_its_members_shows_a_gap() -> None:
    records, included = people()
    truth = hidden_values(records, "sex")
    wrong = 1 - truth
    found, _ = joined(np.where(included, truth, wrong), wrong)
    assert bounds(found["guess_advantage"])[0] > 0.9
    assert bounds(found["guess_gap"])[0] > 0.9
    found, _ = joined(truth, wrong)  # it tells of everybody: an advantage, but no leak of members
    low, value, high = bounds(found["guess_gap"])
    assert value == 0
    assert low < 0 < high


def test_labels_can_be_hidden_too_and_numeric_columns_cannot() -> None:
    records, _ = people()
    found, _ = joined(records.y, 1 - records.y, LABEL)
    assert bounds(found["guess_advantage"])[0] > 0.9
    with pytest.raises(ValueError, match="'age' is no categorical column"):
        joined(records.y, records.y, "age")
    with pytest.raises(ValueError, match="7 guesses about 600"):
        joined(np.zeros(7), np.zeros(7))


def test_people_with_many_records_count_once() -> None:
    records, _ = people()
    owner = np.arange(N) // 4
    truth = hidden_values(records, "sex")
    found, _ = joined(truth, 1 - truth, owner=owner)
    assert found["guess_advantage"].unit == "group of records"
    assert (found["guess_advantage"].n or 0) <= N // 4


@dataclass(frozen=True)
class Says(Attack):
    """Claims what it is told to."""

    claim: Claim

    name = "says"
    title = "Says"
    paper = ""
    requires = ThreatModel(frozenset({Capability.LABELS}), candidates=False)

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Claim:
        return self.claim


class Cut(nn.Module):
    """Class 1 above a threshold of age."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.at - x[:, 2], x[:, 2] - self.at], dim=1)


def test_a_copy_is_measured_beside_what_was_known_without_a_query() -> None:
    records, included = people()
    question = AttackTarget(Target(Cut(0.5), records, "d"), included)
    claim = ExtractedModel((Stolen(10, Cut(0.2)), Stolen(100, Cut(0.45))), without_target=Cut(0.9))
    entry = gather(Says(claim), question, required=True, rng=np.random.default_rng(0), device="cpu")
    assert entry.status is AttackStatus.RAN
    assert entry.ranking is None
    found = entry.measures(level=0.95)
    assert bounds(found["fidelity"])[1] == pytest.approx(0.95, abs=0.03)  # ages are uniform
    assert bounds(found["fidelity_without_target"])[1] == pytest.approx(0.6, abs=0.06)
    assert bounds(found["fidelity_advantage"])[0] > 0.25
    assert entry.joined is not None
    curve = entry.joined.curve(level=0.95)  # type: ignore[union-attr]
    assert [spent for spent, _ in curve] == [10, 100]
    assert curve[0][1].value == pytest.approx(0.7, abs=0.06)


def test_a_copy_that_breaks_is_a_failed_attack() -> None:
    records, included = people()
    question = AttackTarget(Target(Cut(0.5), records, "d"), included)
    entry = gather(
        Says(ExtractedModel((Stolen(1, Cut(float("nan"))),))),
        question, required=True, rng=np.random.default_rng(0), device="cpu",
    )  # fmt: skip
    assert entry.status is AttackStatus.FAILED
    assert "not finite" in str(entry.reason)


def test_singling_out_is_measured_against_equally_many_others() -> None:
    included = np.arange(500) < 100  # far fewer members: on their own they are singled out more easily
    rng = np.random.default_rng(0)
    matches = rng.random((50, 500)) < 1 / 100  # predicates that know nothing
    found = join_predicates(Predicates(matches), included, rng=rng).measures(level=0.95)
    low, _, high = bounds(found["singling_out_advantage"])
    assert low < 0 < high
    exact = np.zeros((60, 500), dtype=bool)
    exact[np.arange(60), np.arange(60)] = True  # each describes one member alone
    low, value, _ = bounds(
        join_predicates(Predicates(exact), included, rng=rng).measures(level=0.95)["singling_out_advantage"]
    )
    assert value == pytest.approx(0.6)
    assert low > 0.4


def test_predicates_that_describe_several_single_out_nobody() -> None:
    included = np.arange(100) < 50
    pairs = np.zeros((25, 100), dtype=bool)
    pairs[np.arange(25), np.arange(25)] = pairs[np.arange(25), 25 + np.arange(25)] = True
    found = join_predicates(Predicates(pairs), included, rng=np.random.default_rng(0)).measures(level=0.95)
    assert found["singling_out_rate"].value == 0
    with pytest.raises(ValueError, match="matches have shape"):
        join_predicates(Predicates(pairs[:, :7]), included, rng=np.random.default_rng(0))


def test_somebody_with_many_records_is_singled_out_once() -> None:
    matches = np.eye(8, dtype=np.bool_)
    included = np.arange(8) < 4
    units = np.array([0, 0, 0, 0, 1, 2, 3, 4])
    found = join_predicates(Predicates(matches), included, rng=np.random.default_rng(0), units=units)
    assert found.inside.tolist() == [1]
    assert found.outside.tolist() == [1, 1, 1, 1]
    assert found.unit == "group of records"
