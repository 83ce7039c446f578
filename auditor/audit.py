"""The main job: plan, target, attacks, verdicts, record."""

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from attacks.protocol import Attack
from attacks.shadows import ShadowSource
from attacks.threat_model import Capability, closure
from auditor.attempts import count_attempt, run_of, subject_of
from auditor.context import Setting
from auditor.evidence.attack_cache import KeptClaims
from auditor.evidence.gallery import gallery
from auditor.evidence.run_attack import Evidence, chosen, gather
from auditor.evidence.subgroups import Part, parts
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_attacks
from auditor.report_builder import Outcome, build_report
from auditor.statistics.membership import rate
from auditor.subject import Question, Subject
from auditor.targets.checkpoint import checkpoint_subject
from auditor.targets.recorded_scores import recorded_subject
from auditor.targets.secondary import with_beside
from auditor.targets.synthetic_data import released_subject
from auditor.targets.trained_here import trained_subject
from auditor.verdicts.epsilon_claims import confidence_of_claims, of_the_model, show_epsilon
from auditor.verdicts.findings import check_limits, judge_all, level_of_intervals
from auditor.verdicts.grounds import judge_grounds
from auditor.white_box.implied_epsilon import imply_epsilon, try_reconstruction
from auditor.white_box.step_bounds import StepAudit
from auditor.workspace import CLAIMS
from defenses.ensemble import module_logits
from defenses.randomness import stream
from reports.records.report import (
    AttackStatus,
    Estimate,
    GalleryItem,
    Report,
    Timing,
)


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


def run_audit(plan: Plan, setting: Setting, *, level: float | None = None) -> Audit:
    """Run one audit from plan to record.

    Args:
        plan: What to audit and against which limits.
        setting: Where to work and with what.
        level: Confidence of each interval; by default all that are judged hold together at the plan's.

    Returns:
        The record with its verdict, and the scores behind it.

    Raises:
        AuditError: If plan, data or checkpoint do not fit, before anything is trained.

    Example:
        >>> audit = run_audit(load_plan(Path("plan.toml")), Setting(Workplace(Path(".auditor"))))  # doctest: +SKIP
        >>> audit.report.verdict                                                                  # doctest: +SKIP
        <Status.LEAKS: 'leaks'>
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    asked = resolve_attacks(plan)
    check_limits(plan, [attack for attack, _ in asked])
    subject = _build(plan, setting)
    # Before anything is attacked: an audit that is stopped when it looks bad has been an attempt all the same.
    attempt = count_attempt(setting.workplace, subject_of(plan, subject.target), run_of(plan, subject.target))
    seconds = {"training the target": time.perf_counter() - clock}
    shared = max((getattr(attack, "shadows", 0) for attack, _ in asked), default=0)
    for question in (*subject.questions, *subject.control):
        if isinstance(question.target.shadows, ShadowSource):
            question.target.shadows.planned = shared  # attacks that want fewer get the first of them
    evidence = _attack(asked, subject.questions, plan, setting)
    ran = [entry for entry in evidence if entry.status is AttackStatus.RAN]
    level = level or level_of_intervals(plan, [entry.attack for entry in ran])
    wanted = [limit.measure for limit in plan.limits]
    found = {entry.attack.name: entry.measures(level=level, wanted=wanted) for entry in ran}
    clock = time.perf_counter()
    again = [entry for entry in _again(ran, subject.control, plan, setting) if entry.status is AttackStatus.RAN]
    control: dict[str, Mapping[str, Estimate]] = {
        entry.attack.name: entry.measures(level=level, wanted=wanted) for entry in again
    }
    if subject.control:
        seconds["positive control"] = time.perf_counter() - clock
    shown = show_epsilon(evidence, subject, plan)
    clock = time.perf_counter()
    implied = imply_epsilon(plan, subject, setting, confidence=confidence_of_claims(plan))
    if implied is not None:
        seconds["gradient canaries"] = time.perf_counter() - clock
    clock = time.perf_counter()
    rebuilt = try_reconstruction(plan, subject, setting, confidence=confidence_of_claims(plan))
    if rebuilt is not None:
        seconds["prior-aware reconstruction"] = time.perf_counter() - clock
    findings = judge_all(evidence, found, control, shown, subject, plan, implied, rebuilt)
    findings += judge_grounds(subject, plan, setting, evidence)
    seconds |= {f"attack {entry.attack.name}": entry.seconds for entry in evidence}
    report = build_report(
        plan,
        setting,
        subject,
        Outcome(
            evidence,
            found,
            control,
            shown,
            findings,
            attempt,
            level,
            _parts(plan, subject, setting),
            implied,
            _gallery(ran, subject, plan, setting),
        ),
        Timing(
            started=started.isoformat(timespec="seconds"),
            seconds=seconds,
            reused=_reused(subject, [*evidence, *again]),
        ),
    )
    key = int.from_bytes(setting.workplace.record_key())  # secret, or the order could be restored from the report
    mixed = stream(key, "sidecar", subject.target.digest).permutation(len(subject.split.included))
    return Audit(
        report,
        {
            entry.attack.name: entry.scores[mixed]
            for entry in ran
            if entry.ranking is not None and of_the_model(entry, subject)
        },
        subject.split.included[mixed],
        trained=subject.store.trained,
        found=subject.store.loaded,
        evidence=tuple(evidence),
        control=tuple(again),
        steps=implied,
        event=subject.event,
        unprotected=accuracy(subject.control[0], setting, plan.confidence) if subject.control else None,
        model=subject.target.model if Capability.WEIGHTS in closure(subject.target.access) else None,
    )


def _reused(subject: Subject, evidence: Sequence[Evidence]) -> dict[str, int]:
    """Return how much of an audit an earlier run had kept."""
    counts = {"models": subject.store.loaded, "attacks": sum(entry.reused for entry in evidence)}
    return {name: count for name, count in counts.items() if count}


def _build(plan: Plan, setting: Setting) -> Subject:
    if plan.data is not None:
        return with_beside(trained_subject(plan, plan.data, setting), plan, setting)
    if plan.scores is not None:
        return recorded_subject(plan, plan.scores, setting)
    if plan.released is not None:
        return released_subject(plan, plan.released, setting)
    assert plan.checkpoint is not None
    return with_beside(checkpoint_subject(plan, plan.checkpoint, setting), plan, setting)


def accuracy(question: Question, setting: Setting, level: float) -> Estimate | None:
    """Return the accuracy of a model on the candidates that it was not trained on."""
    if Capability.LABELS not in closure(question.target.access):
        return None
    rest = question.target.candidates.take(~question.included)
    right = module_logits(question.target.model, rest.x, device=setting.place).argmax(1) == rest.y
    return rate(int(right.sum()), len(rest), level=level)


def _parts(plan: Plan, subject: Subject, setting: Setting) -> list[Part]:
    candidates = subject.target.candidates
    if Capability.LABELS not in closure(subject.target.access):
        return []  # there is no model that could be right or wrong
    said = module_logits(subject.target.model, candidates.x, device=setting.place)
    return parts(plan.slices, candidates, np.asarray(said.argmax(axis=1)))


def _attack(
    attacks: Sequence[tuple[Attack, bool]], questions: Sequence[Question], plan: Plan, setting: Setting
) -> list[Evidence]:
    """Run attacks on a subject; their randomness derives from data, model and plan, so it cannot be drawn again."""
    found, kept = [], KeptClaims(setting.workplace.kept(CLAIMS))
    for attack, required in attacks:
        question = chosen(attack, questions)
        digests = (question.target.digest, question.target.candidates.digest)
        found.append(
            gather(
                attack,
                question,
                required=required,
                rng=stream(0, "attack", attack.name, *digests, plan.subject_digest),
                device=setting.place,
                on_progress=setting.on_progress,
                kept=None if attack.requires.recipe else kept,  # their cost is shadow models, which are kept anyway
                names=(*digests, plan.subject_digest),
            )
        )
    return found


def _gallery(ran: Sequence[Evidence], subject: Subject, plan: Plan, setting: Setting) -> list[GalleryItem]:
    """Return what people may look at: private records if they are to be shown, else attacks on drawn canaries."""
    reconstructing = [entry for entry in ran if entry.joined is not None and entry.joined.copies is not None]
    if setting.include_records:
        return gallery(reconstructing, synthetic=False)
    return gallery(list(_again(reconstructing, subject.shown, plan, setting)), synthetic=True)


def _again(ran: Sequence[Evidence], others: Sequence[Question], plan: Plan, setting: Setting) -> Iterator[Evidence]:
    """Run attacks again on the counterpart of what each was run on, where there is one."""
    counterparts = {question.about: question for question in others}
    for entry in ran:
        if entry.question.about in counterparts:
            yield from _attack([(entry.attack, entry.required)], [counterparts[entry.question.about]], plan, setting)
