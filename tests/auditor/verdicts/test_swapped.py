"""Where a guarantee is about replacing a record, each coin chooses one of a pair, and the pair is the trial."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from torch import nn

from attacks.membership.loss_threshold import LossThreshold
from attacks.protocol import MembershipScores
from attacks.target import Target
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.epsilon.one_run_bound import one_run_from_scores
from auditor.evidence.membership import ScoredCandidates
from auditor.evidence.ranking import Ranking
from auditor.evidence.run_attack import Evidence
from auditor.plan.plan import parse_plan
from auditor.subject import AttackTarget, AuditSubject
from auditor.verdicts.epsilon_claims import EpsilonEvidence, best_epsilon_evidence
from auditor.workspace import Workspace
from defenses.defense import Defense, Prepared
from defenses.engine.store import ModelStore
from defenses.events import PureDpEvent
from defenses.guarantee import Neighboring
from defenses.records import BoolArray, Inclusion, IntArray, Records, Split, Table
from defenses.schemes.none import NoDefense
from reports.records.report import AttackStatus, Status


def records(n: int, owner: np.ndarray[Any, Any] | None = None) -> Records:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Records(x, rng.integers(0, 2, n), 2, Table((), "y", ()), owner=owner)


def test_one_of_each_pair_is_in_by_a_fair_coin_and_the_odd_one_never() -> None:
    chosen, counts = records(9), np.zeros(9)
    for seed in range(2000):
        included, pair = chosen.swaps(np.random.default_rng(seed))
        assert included.sum() == 4
        assert sorted(pair.tolist()) == [-1, 0, 0, 1, 1, 2, 2, 3, 3]
        assert not included[pair == -1].any()
        assert all(included[pair == number].sum() == 1 for number in range(4))
        counts += included
    # Each record is paired in 8 of 9 draws, and then in by a fair coin.
    assert stats.binomtest(int(counts[0]), 2000, 4 / 9).pvalue > 0.001
    assert counts.min() > 700


def test_an_owners_records_are_swapped_together() -> None:
    owner = np.repeat(np.arange(6), 3)
    included, pair = records(18, owner).swaps(np.random.default_rng(1))
    for person in range(6):
        assert len(set(included[owner == person])) == 1
        assert len(set(pair[owner == person])) == 1
    assert included.sum() == 9


def test_pairs_are_given_exactly_if_they_were_swapped() -> None:
    bits = np.array([True, False])
    with pytest.raises(ValueError, match="pairs are given exactly"):
        Split(bits, Inclusion.SWAPPED)
    with pytest.raises(ValueError, match="pairs are given exactly"):
        Split(bits, Inclusion.INDEPENDENT, pair=np.zeros(2, dtype=np.int64))


PLAN = """
title = "swapped"
seed = 5
delta = 1e-5
[data]
source = "digits"
pool = 400
[model]
architecture = "mlp"
[training]
epochs = 1
batch_size = 50
learning_rate = 0.1
[scheme]
name = "{name}"
[[attacks]]
name = "loss_threshold"
[control]
enabled = false
"""


def shown(
    scores: np.ndarray[Any, np.dtype[np.float64]], included: BoolArray, pair: IntArray, pool: Records
) -> EpsilonEvidence:
    """Return what an attack with these scores shows."""
    split = Split(included, Inclusion.SWAPPED, pair=pair)
    target = Target(model=nn.Identity(), candidates=pool, digest="")
    subject = AuditSubject(target, split, NoDefense(), "none", None, None, ModelStore("unused"))
    question, claim = AttackTarget(target, included), MembershipScores(scores)
    joined = ScoredCandidates(Ranking(scores, included, pool.units))
    evidence = Evidence(LossThreshold(), False, AttackStatus.RAN, question, claim=claim, joined=joined)
    return best_epsilon_evidence([evidence], subject, parse_plan(PLAN.format(name="none")))


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_a_mechanism_of_known_epsilon_is_never_passed_and_nearly_reached(epsilon: float) -> None:
    """Each pair's coin goes through randomised response of that epsilon: the strongest mechanism that has it."""
    pool = records(4000)
    lower = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        included, pair = pool.swaps(rng)
        said = rng.random(2000) < np.exp(epsilon) / (1 + np.exp(epsilon))  # one truthful answer for each pair
        scores = np.where(included == said[pair], 1.0, -1.0)
        audit = shown(scores, included, pair, pool).audit
        assert audit is not None
        assert audit.bound.neighboring is Neighboring.REPLACE_ONE
        lower.append(audit.bound.lower)
    assert np.mean(np.array(lower) > epsilon) <= 0.1  # at 97.5% confidence
    assert np.median(lower) > 0.7 * epsilon


def test_two_infinite_scores_of_a_pair_tell_nothing() -> None:
    pool = records(200)
    audit = shown(np.full(200, -np.inf), *pool.swaps(np.random.default_rng(0)), pool).audit
    assert audit is not None
    assert audit.bound.lower == 0


@dataclass(frozen=True)
class Replaced(Defense):
    """Promises something about replacing, and trains plainly."""

    name = "replaced"
    title = "a scheme about replacing"
    paper = "none"
    neighboring = Neighboring.REPLACE_ONE

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        return Prepared(records)

    def event(self, history: object) -> object:
        return PureDpEvent(0.05)


def test_an_audit_of_a_promise_about_replacing_is_comparable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("auditor.plan.resolve.registered_schemes", lambda: {"replaced": Replaced})
    plan = parse_plan(PLAN.format(name="replaced").replace("epochs = 1", "epochs = 300").replace("0.1\n", "0.5\n"))
    found = run_audit(plan, RunContext(Workspace(tmp_path)))
    report = found.report
    assert report.subject.members == report.subject.nonmembers == 200
    assert report.epsilons.shown is not None
    assert (
        report.epsilons.shown.neighboring == Neighboring.REPLACE_ONE.value
        or "replace" in report.epsilons.shown.neighboring.lower()
    )
    proof = next(finding for finding in report.findings if finding.code == "PA002")
    assert proof.status in (Status.CONSISTENT, Status.INCONCLUSIVE, Status.VIOLATED)
    assert proof.status is not Status.NOT_COMPARABLE


def test_pairs_give_what_their_coins_would_give_by_hand() -> None:
    rng = np.random.default_rng(3)
    pool = records(600)
    included, pair = pool.swaps(rng)
    scores = rng.normal(size=600) + included
    found = shown(scores, included, pair, pool).audit
    first = np.array([np.flatnonzero(pair == number)[0] for number in range(300)])
    second = np.array([np.flatnonzero(pair == number)[1] for number in range(300)])
    by_hand = one_run_from_scores(
        scores[first] - scores[second],
        included[first],
        inclusion=Inclusion.INDEPENDENT,
        delta=1e-5,
        confidence=0.975,
    )
    assert found is not None
    assert found.bound == replace(by_hand.bound, neighboring=Neighboring.REPLACE_ONE)


def test_a_promise_about_labels_is_not_held_against_whole_records(tmp_path: Path) -> None:
    """A swapped record differs in its features too, of which a scheme for labels promises nothing."""
    text = PLAN.format(name="label_dp").replace('name = "label_dp"', 'name = "label_dp"\nepsilon = 0.1')
    report = run_audit(parse_plan(text), RunContext(Workspace(tmp_path))).report
    judged = [finding for finding in report.findings if finding.code in ("PA001", "PA002")]
    assert {finding.status for finding in judged} == {Status.NOT_COMPARABLE}
    assert "one label" in judged[0].sentence
