"""The main job: a plan is built, attacked, measured, judged and reported, each stage from what the one before made."""

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from attacks.capabilities import Capability
from attacks.protocol import Attack
from attacks.shadows import ShadowSource
from auditor.attempts import count_attempt, run_of, subject_of
from auditor.context import RunContext
from auditor.evidence.attack_cache import KeptClaims
from auditor.evidence.run_attack import Evidence, chosen, gather
from auditor.evidence.subgroups import Part, parts
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_attacks
from auditor.report_builder import build_report
from auditor.stages import Attacked, Built, Judged, Measured
from auditor.statistics.membership import rate
from auditor.subject import AttackTarget
from auditor.verdicts.epsilon_claims import best_epsilon_evidence, confidence_of_claims, of_the_model
from auditor.verdicts.findings import check_limits, judge_all, level_of_intervals
from auditor.verdicts.grounds import judge_grounds
from auditor.white_box.implied_epsilon import audit_steps_of_plan, try_reconstruction
from auditor.white_box.step_bounds import StepAudit
from auditor.workspace import CLAIMS
from defenses.randomness import stream
from reports.records.report import AttackStatus, Estimate, Report


@dataclass(frozen=True)
class Audit:
    """What an audit yields.

    Attributes:
        report: The record.
        scores: attack -> (m,) scores, in an order that was shuffled once for all of them.
        included: (m,) bool truth in the same order.
        trained: Models that this run trained.
        found: Models that it found already trained.
        evidence: What came of each attack on the target.
        control: What came of those that ran on the positive control, with its model.
        steps: What the steps of the training show, if they were watched.
        event: What the training did to the data, as accountants know it; None where that is not known.
        unprotected: Accuracy of the positive control on records that it was not trained on.
        model: The model that was audited; None where there is none.
    """

    report: Report
    scores: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
    included: np.ndarray[Any, np.dtype[np.bool_]]
    trained: int = 0
    found: int = 0
    evidence: tuple[Evidence, ...] = ()
    control: tuple[Evidence, ...] = ()
    steps: StepAudit | None = None
    event: Any = None
    unprotected: Estimate | None = None
    model: nn.Module | None = None


def run_audit(plan: Plan, context: RunContext, *, level: float | None = None) -> Audit:
    """Run one audit from plan to record.

    Args:
        plan: What to audit and against which limits.
        context: Where to work and with what.
        level: Confidence of each interval; by default all that are judged hold together at the plan's.

    Returns:
        The record with its verdict, and the scores behind it.

    Raises:
        AuditError: If plan, data or checkpoint do not fit, before anything is trained.

    Examples:
        >>> audit = run_audit(load_plan(Path("plan.toml")), RunContext(Workspace(Path(".auditor"))))  # doctest: +SKIP
        >>> audit.report.verdict                                                                  # doctest: +SKIP
        <Status.LEAKS: 'leaks'>
    """
    return report(judge(measure(attack(build(plan, context)), level=level)))


def build(plan: Plan, context: RunContext) -> Built:
    """Make what is audited; the only stage that sees the whole plan.

    Raises:
        AuditError: If plan, data or checkpoint do not fit, before anything is trained.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    attacks, terms = resolve_attacks(plan), plan.terms
    check_limits(terms, [one for one, _ in attacks])
    subject = plan.target.build(plan, context)
    # Before anything is attacked: an audit that is stopped when it looks bad has been an attempt all the same.
    attempt = count_attempt(context.workspace, subject_of(terms, subject), run_of(terms, subject))
    shared = max((getattr(one, "shadows", 0) for one, _ in attacks), default=0)
    for question in (*subject.questions, *subject.control):
        if isinstance(question.target.shadows, ShadowSource):
            question.target.shadows.planned = shared  # attacks that want fewer get the first of them
    return Built(
        subject=subject,
        attacks=tuple(attacks),
        terms=terms,
        context=context,
        attempt=attempt,
        started=started.isoformat(timespec="seconds"),
        seconds={"training the target": time.perf_counter() - clock},
    )


def attack(built: Built) -> Attacked:
    """Run every attack on the target, those that ran on its control, and the audits of steps that are asked for."""
    subject, terms, context = built.subject, built.terms, built.context
    evidence = _run(built.attacks, subject.questions, built)
    ran = [entry for entry in evidence if entry.status is AttackStatus.RAN]
    seconds = dict(built.seconds)
    clock = time.perf_counter()
    control = [entry for entry in _again(ran, subject.control, built) if entry.status is AttackStatus.RAN]
    if subject.control:
        seconds["positive control"] = time.perf_counter() - clock
    clock = time.perf_counter()
    implied = audit_steps_of_plan(terms, subject, context, confidence=confidence_of_claims(terms))
    if implied is not None:
        seconds["gradient canaries"] = time.perf_counter() - clock
    clock = time.perf_counter()
    rebuilt = try_reconstruction(terms, subject, context, confidence=confidence_of_claims(terms))
    if rebuilt is not None:
        seconds["prior-aware reconstruction"] = time.perf_counter() - clock
    # What people may look at: private records if they are to be shown, else attacks on drawn canaries.
    pictures = [entry for entry in ran if entry.joined is not None and entry.joined.copies is not None]
    if not context.include_records:
        pictures = list(_again(pictures, subject.shown, built))
    seconds |= {f"attack {entry.attack.name}": entry.seconds for entry in evidence}
    return Attacked(built, tuple(evidence), tuple(control), tuple(pictures), implied, rebuilt, seconds)


def measure(attacked: Attacked, *, level: float | None = None) -> Measured:
    """Measure what the attacks found, and bound epsilon by it.

    Args:
        attacked: What came of the attacks.
        level: Confidence of each interval; by default all that are judged hold together at the plan's.
    """
    built = attacked.built
    subject, terms = built.subject, built.terms
    level = level or level_of_intervals(terms, [entry.attack for entry in attacked.ran])
    wanted = [limit.measure for limit in terms.limits]

    def measured(evidence: Sequence[Evidence]) -> dict[str, Mapping[str, Estimate]]:
        return {entry.attack.name: entry.measures(level=level, wanted=wanted) for entry in evidence}

    return Measured(
        attacked=attacked,
        level=level,
        found=measured(attacked.ran),
        control=measured(attacked.control),
        shown=best_epsilon_evidence(attacked.evidence, subject, terms),
        parts=tuple(_parts(built)),
    )


def judge(measured: Measured) -> Judged:
    """Judge what was measured against limits and claims, and what the owner says against data and shadow models."""
    attacked = measured.attacked
    built = attacked.built
    findings = judge_all(
        attacked.evidence,
        measured.found,
        measured.control,
        measured.shown,
        built.subject,
        built.terms,
        attacked.implied,
        attacked.rebuilt,
    )
    grounds = judge_grounds(built.subject, built.context, attacked.evidence)
    return Judged(measured, (*findings, *grounds))


def report(judged: Judged) -> Audit:
    """Write down an audit, with the scores behind it in an order that was shuffled once for all attacks."""
    attacked = judged.measured.attacked
    built = attacked.built
    subject, context = built.subject, built.context
    written = build_report(judged)
    key = int.from_bytes(context.workspace.record_key())  # secret, or the order could be restored from the report
    mixed = stream(key, "sidecar", subject.target.digest).permutation(len(subject.split.included))
    ranked = [entry for entry in attacked.ran if entry.ranking is not None and of_the_model(entry, subject)]
    model = subject.target.model
    return Audit(
        written,
        {entry.attack.name: entry.scores[mixed] for entry in ranked},
        subject.split.included[mixed],
        trained=subject.store.trained,
        found=subject.store.loaded,
        evidence=attacked.evidence,
        control=attacked.control,
        steps=attacked.implied,
        event=subject.event,
        unprotected=accuracy(subject.control[0], context, built.terms.confidence) if subject.control else None,
        model=model if isinstance(model, nn.Module) and subject.target.can(Capability.WEIGHTS) else None,
    )


def accuracy(question: AttackTarget, context: RunContext, level: float) -> Estimate | None:
    """Return the accuracy of a model on the candidates that it was not trained on; None where there is no model."""
    if not question.target.can(Capability.LABELS):
        return None
    rest = question.target.candidates.take(~question.included)
    right = question.target.logits(rest.x, device=context.place).argmax(1) == rest.y
    return rate(int(right.sum()), len(rest), level=level)


def _parts(built: Built) -> list[Part]:
    target = built.subject.target
    if not target.can(Capability.LABELS):
        return []  # there is no model that could be right or wrong
    said = target.logits(target.candidates.x, device=built.context.place)
    return parts(built.terms.slices, target.candidates, np.asarray(said.argmax(axis=1)))


def _run(attacks: Sequence[tuple[Attack, bool]], questions: Sequence[AttackTarget], built: Built) -> list[Evidence]:
    """Run attacks on a subject; their randomness derives from data, model and plan, so it cannot be drawn again."""
    context = built.context
    evidence, kept = [], KeptClaims(context.workspace.kept(CLAIMS))
    for one, required in attacks:
        question = chosen(one, questions)
        digests = (question.target.digest, question.target.candidates.digest)
        evidence.append(
            gather(
                one,
                question,
                required=required,
                rng=stream(0, "attack", one.name, *digests, built.terms.subject_digest),
                device=context.place,
                on_progress=context.on_progress,
                kept=None if one.requires.recipe else kept,  # their cost is shadow models, which are kept anyway
                names=(*digests, built.terms.subject_digest),
            )
        )
    return evidence


def _again(ran: Sequence[Evidence], others: Sequence[AttackTarget], built: Built) -> Iterator[Evidence]:
    """Run attacks again on the counterpart of what each was run on, where there is one."""
    counterparts = {question.about: question for question in others}
    for entry in ran:
        if entry.question.about in counterparts:
            yield from _run([(entry.attack, entry.required)], [counterparts[entry.question.about]], built)
