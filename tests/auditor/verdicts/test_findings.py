"""From evidence to findings: false alarms at most at the nominal rate, and silence never mistaken for safety."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from attacks.membership.lira import LiRA
from attacks.membership.loss_threshold import LossThreshold
from attacks.membership.rmia import RMIA
from attacks.protocol import Attack, Claim, MembershipScores, Reconstructions
from attacks.reconstruction.model_inversion import ModelInversion
from attacks.target import Target
from auditor.evidence.claim_kind import kind_of
from auditor.evidence.reconstruction import ReconstructionEvidence
from auditor.evidence.reconstruction_comparison import flagged
from auditor.evidence.run_attack import Evidence
from auditor.plan.plan import Plan, parse_plan
from auditor.subject import AttackTarget, AuditSubject
from auditor.verdicts.epsilon_claims import best_epsilon_evidence
from auditor.verdicts.findings import headline, judge_all, level_of_intervals
from defenses.engine.store import ModelStore
from defenses.guarantee import Guarantee, Neighboring
from defenses.records import Image, Inclusion, Records, Split, Table
from defenses.schemes.none import NoDefense
from reports.records.report import AttackStatus, Status

PLAN = """
title = "t"
[data]
source = "digits"
pool = 2000
[model]
architecture = "mlp"
[training]
epochs = 1
batch_size = 10
learning_rate = 0.1
"""


@dataclass(frozen=True)
class Named(LossThreshold):
    name = "lira"  # type: ignore[misc]


def subject(
    included: np.ndarray, *, inclusion: Inclusion = Inclusion.INDEPENDENT, epsilon: float = 2.0
) -> AuditSubject:
    m = len(included)
    records = Records(np.zeros((m, 1), np.float32), np.zeros(m, np.int64), 2, Table((), "y", ()))
    split = Split(included, inclusion)
    return AuditSubject(
        target=Target(torch.nn.Linear(1, 2), records, "d"),
        split=split,
        defense=NoDefense(),
        scheme="t",
        claimed=Guarantee(epsilon, 1e-5, Neighboring.ADD_REMOVE),
        proved=None,
        store=ModelStore.__new__(ModelStore),
        control_reason="switched off",
    )


def ran(attack: Attack, claim: Claim, question: AttackTarget) -> Evidence:
    """Return what comes of an attack that claims this."""
    joined = kind_of(type(claim)).join(claim, question, attack=attack, rng=np.random.default_rng(0), device="cpu")
    return Evidence(attack, True, AttackStatus.RAN, question, claim=claim, joined=joined)


def judged(plan: Plan, claims: dict[str, np.ndarray], who: AuditSubject) -> list:  # type: ignore[type-arg]
    evidence = [
        ran(type("A", (Named,), {"name": name})(), MembershipScores(scores), who.questions[0])
        for name, scores in claims.items()
    ]
    level = level_of_intervals(plan, [entry.attack for entry in evidence])
    found = {entry.attack.name: entry.measures(level=level) for entry in evidence}
    return judge_all(evidence, found, {}, best_epsilon_evidence(evidence, who, plan), who, plan)


def test_null_audits_cry_wolf_at_most_at_the_nominal_rate() -> None:
    # Labels are drawn after the scores: there is no leak, the true epsilon is 0, and limits sit exactly at guessing.
    limits = '[[limits]]\nmeasure = "auc"\nmaximum = 0.5\n[[limits]]\nmeasure = "tpr_at_fpr_0.01"\nmaximum = 0.01\n'
    plan = parse_plan(PLAN + limits)
    alarms = covered = total = 0
    for audit in range(200):
        rng = np.random.default_rng([17, audit])
        who = subject(rng.random(2000) < 0.5, epsilon=0.0)
        base = rng.normal(size=2000)
        claims = {name: base + rng.normal(size=2000) for name in ("one", "two", "three", "four")}
        findings = judged(plan, claims, who)
        alarms += any(finding.status in (Status.VIOLATED, Status.LEAKS) for finding in findings)
        for finding in findings:
            if finding.measure == "auc":
                covered += finding.found.low <= 0.5 <= finding.found.high
                total += 1
    assert alarms <= 18
    assert covered / total > 0.975  # each interval holds at 1 - 0.05 / 8


def test_a_leak_is_flagged_and_heads_the_report() -> None:
    rng = np.random.default_rng(0)
    included = rng.random(4000) < 0.5
    scores = rng.normal(size=4000) + 1.5 * included
    findings = judged(parse_plan(PLAN), {"lira": scores}, subject(included, epsilon=0.1))
    assert {finding.status for finding in findings} == {Status.VIOLATED, Status.LEAKS}
    leak = next(finding for finding in findings if finding.status is Status.LEAKS)
    assert leak.code == "PA010"
    assert "1% FPR" in headline([leak], {"lira": "LiRA"})
    assert "above the limit of 3%" in headline([leak], {"lira": "LiRA"})


def test_without_fair_coins_a_claim_cannot_be_tested() -> None:
    included = np.random.default_rng(0).random(2000) < 0.5
    findings = judged(
        parse_plan(PLAN),
        {"a": np.random.default_rng(1).normal(size=2000)},
        subject(included, inclusion=Inclusion.FIXED),
    )
    claim = next(finding for finding in findings if finding.code == "PA001")
    assert claim.status is Status.NOT_COMPARABLE
    assert "fair coins" in claim.sentence


def test_silence_without_a_control_is_inconclusive() -> None:
    included = np.random.default_rng(0).random(20_000) < 0.5
    noise = {"a": np.random.default_rng(1).normal(size=20_000)}
    leak = judged(parse_plan(PLAN), noise, subject(included))[-1]
    assert leak.status is Status.INCONCLUSIVE
    assert leak.control_reason == "switched off"
    waived = judged(parse_plan(PLAN + "[control]\nenabled = false"), noise, subject(included))[-1]
    assert waived.status is Status.WITHIN
    assert "No control" in waived.sentence


@pytest.mark.parametrize(("required", "status"), [(True, Status.ERROR), (False, Status.INFORMATION)])
def test_an_attack_that_could_not_run_is_never_a_pass_if_it_was_asked_for(required: bool, status: Status) -> None:
    included = np.random.default_rng(0).random(100) < 0.5
    who = subject(included)
    entry = Evidence(
        Named(), required, AttackStatus.NOT_APPLICABLE, who.questions[0], reason="needs the training recipe"
    )
    findings = judge_all([entry], {}, {}, best_epsilon_evidence([entry], who, parse_plan(PLAN)), who, parse_plan(PLAN))
    assert findings[-1].status is status
    assert "needs the training recipe" in findings[-1].sentence
    failed = Evidence(Named(), False, AttackStatus.FAILED, who.questions[0], reason="ValueError: boom")
    assert (
        judge_all([failed], {}, {}, best_epsilon_evidence([failed], who, parse_plan(PLAN)), who, parse_plan(PLAN))[
            -1
        ].status
        is Status.ERROR
    )


def test_the_silence_of_a_blind_attack_decides_nothing_where_another_one_sees() -> None:
    # "sees" finds a small leak within the limit, so it has shown its power; "blind" finds nothing at all.
    rng = np.random.default_rng(3)
    included = rng.random(20_000) < 0.5
    claims = {"sees": rng.normal(size=20_000) + 0.15 * included, "blind": rng.normal(size=20_000)}
    plan = parse_plan(PLAN + '[[limits]]\nmeasure = "auc"\nmaximum = 0.58')
    leaks = {finding.attack: finding for finding in judged(plan, claims, subject(included)) if finding.code == "PA010"}
    assert (leaks["sees"].status, leaks["sees"].counts) == (Status.WITHIN, True)
    assert (leaks["blind"].status, leaks["blind"].counts) == (Status.INCONCLUSIVE, False)
    alone = judged(plan, {"blind": claims["blind"]}, subject(included))[-1]
    assert (alone.status, alone.counts) == (Status.INCONCLUSIVE, True)


def test_blind_attacks_call_no_claim_consistent() -> None:
    included = np.random.default_rng(0).random(4000) < 0.5
    noise = {"a": np.zeros(4000)}
    claim = judged(parse_plan(PLAN), noise, subject(included))[0]
    assert (claim.code, claim.status) == ("PA001", Status.INCONCLUSIVE)
    assert "their silence says nothing" in claim.sentence
    seeing = {"a": np.random.default_rng(1).normal(size=4000) + 0.3 * included}
    assert judged(parse_plan(PLAN), seeing, subject(included))[0].status is Status.CONSISTENT


def test_limits_for_single_attacks_cost_nothing_for_the_others() -> None:
    one = '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\nattack = "{}"\n'
    each = parse_plan(PLAN + "".join(one.format(name) for name in ("lira", "rmia")))
    attacks = [LiRA(), RMIA()]
    assert level_of_intervals(each, attacks) == pytest.approx(1 - 0.05 / 2)
    both = parse_plan(PLAN + one.format("lira") + '[[limits]]\nmeasure = "advantage"\nmaximum = 0.6\n')
    assert level_of_intervals(both, attacks) == pytest.approx(1 - 0.05 / 3)


def test_a_few_copies_keep_a_mean_from_being_called_within() -> None:
    """30 copies among 200 reconstructions move an AUC over 400 records by little, and are no accident."""
    rng = np.random.default_rng(2)
    x = rng.random((400, 1, 8, 8)).astype(np.float32)
    records, included = Records(x, np.zeros(400, np.int64), 2, Image()), rng.random(400) < 0.5
    made = rng.random((200, 1, 8, 8)).astype(np.float32)
    plan = parse_plan(PLAN + '[control]\nenabled = false\n[[limits]]\nmeasure = "auc"\nmaximum = 0.7\n')
    statuses = {}
    for copies in (0, 30):
        made[:copies] = x[np.flatnonzero(included)[:copies]]
        target = Target(torch.nn.Linear(1, 2), records, "d")
        entry = ran(ModelInversion(), Reconstructions(made), AttackTarget(target, included))
        assert isinstance(entry.joined, ReconstructionEvidence)
        assert flagged(entry.joined.compared.leakage) is (copies > 0)
        found = {"model_inversion": entry.measures(level=0.95)}
        who = replace(subject(included), target=target, claimed=None)
        (finding,) = judge_all([entry], found, {}, best_epsilon_evidence([entry], who, plan), who, plan)
        statuses[copies] = finding.status
        assert ("copies" in finding.sentence) is (copies > 0)
    assert statuses == {0: Status.WITHIN, 30: Status.INCONCLUSIVE}


def test_only_an_attack_on_the_same_thing_carries_a_limit_for_one_that_sees_nothing() -> None:
    rng = np.random.default_rng(1)
    included = rng.random(2000) < 0.5
    who = subject(included)
    plan = parse_plan(PLAN + '[[limits]]\nmeasure = "auc"\nmaximum = 0.7\n')
    blind, seeing = rng.normal(size=2000), rng.normal(size=2000) + 0.5 * included
    for about, counts in (("the trained model", [True, False]), ("gradients", [True, True])):
        questions = {"sees": who.questions[0], "blind": AttackTarget(who.target, included, about=about)}
        evidence = [
            ran(type("A", (Named,), {"name": name})(), MembershipScores(scores), questions[name])
            for name, scores in (("sees", seeing), ("blind", blind))
        ]
        found = {entry.attack.name: entry.measures(level=0.95) for entry in evidence}
        findings = judge_all(evidence, found, {}, best_epsilon_evidence(evidence, who, plan), who, plan)
        limits = [finding for finding in findings if finding.code == "PA010"]
        assert [finding.status for finding in limits] == [Status.WITHIN, Status.INCONCLUSIVE]
        assert [finding.counts for finding in limits] == counts


@pytest.mark.parametrize("copied", [0, 2])
def test_a_mean_similarity_does_not_hide_a_few_copies(copied: int) -> None:
    """Forty gradients are read badly, and two of them perfectly: the mean is small either way."""
    rng = np.random.default_rng(0)
    records = Records(rng.random((80, 1, 8, 8), np.float32), np.zeros(80, np.int64), 2, Image(0.0, 1.0))
    included, victims = np.arange(80) < 40, np.arange(40)[:, None]
    made = rng.random((40, 1, 8, 8), np.float32)
    made[:copied] = records.x[:copied]
    target = Target(torch.nn.Linear(1, 2), records, "d")
    entry = ran(ModelInversion(), Reconstructions(made), AttackTarget(target, included, victims=victims))
    assert entry.joined is not None
    doubt = entry.joined.doubt("similarity", 0.4)
    assert (doubt is not None) is bool(copied)
    if doubt is not None:
        assert "2 of 40 are above 0.7" in doubt
