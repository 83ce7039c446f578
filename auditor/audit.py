"""The main job: plan, target, attacks, verdicts, record."""

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attacks.protocol import Attack
from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from auditor.claims import confidence_of_claims, show_epsilon
from auditor.evidence import Evidence, gather, measures
from auditor.findings import check_limits, judge_all, level_of_intervals
from auditor.handed_over import checkpoint_subject
from auditor.implied import imply_epsilon
from auditor.plan import Plan
from auditor.recorded import recorded_subject
from auditor.recording import Outcome, build_report
from auditor.resolve import resolve_attacks
from auditor.setting import Setting
from auditor.slices import Part, parts
from auditor.subject import Subject
from auditor.trained import trained_subject
from defenses.ensemble import module_logits
from defenses.randomness import stream
from reports.record import (
    AttackStatus,
    Estimate,
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
    """

    report: Report
    scores: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
    included: np.ndarray[Any, np.dtype[np.bool_]]
    trained: int = 0
    found: int = 0


def run_audit(plan: Plan, setting: Setting) -> Audit:
    """Run one audit from plan to record.

    Args:
        plan: What to audit and against which limits.
        setting: Where to work and with what.

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
    chosen = resolve_attacks(plan)
    check_limits(plan, [attack.name for attack, _ in chosen])
    subject = _build(plan, setting)
    seconds = {"training the target": time.perf_counter() - clock}
    shared = max((getattr(attack, "shadows", 0) for attack, _ in chosen), default=0)
    for one in (subject.target, *([subject.control[0]] if subject.control else [])):
        if isinstance(one.shadows, ShadowSource):
            one.shadows.planned = shared  # attacks that want fewer get the first of them
    evidence = _attack(chosen, subject.target, subject.split.included, plan, setting)
    ran = [entry for entry in evidence if entry.status is AttackStatus.RAN]
    level = level_of_intervals(plan, [entry.attack.name for entry in ran])
    wanted = [limit.measure for limit in plan.limits]
    found = {entry.attack.name: measures(entry, level=level, wanted=wanted) for entry in ran}
    control: dict[str, Mapping[str, Estimate]] = {}
    if subject.control is not None:
        clock = time.perf_counter()
        target, included = subject.control
        again = [(entry.attack, entry.required) for entry in ran]
        for entry in _attack(again, target, included, plan, setting):
            if entry.status is AttackStatus.RAN:
                control[entry.attack.name] = measures(entry, level=level, wanted=wanted)
        seconds["positive control"] = time.perf_counter() - clock
    shown = show_epsilon(evidence, subject, plan)
    clock = time.perf_counter()
    implied = imply_epsilon(plan, subject, setting, confidence=confidence_of_claims(plan))
    if implied is not None:
        seconds["gradient canaries"] = time.perf_counter() - clock
    findings = judge_all(evidence, found, control, shown, subject, plan, implied)
    seconds |= {f"attack {entry.attack.name}": entry.seconds for entry in evidence}
    report = build_report(
        plan,
        setting,
        subject,
        Outcome(evidence, found, control, shown, findings, level, _parts(plan, subject, setting), implied),
        Timing(started=started.isoformat(timespec="seconds"), seconds=seconds),
    )
    key = int.from_bytes(setting.workplace.record_key())  # secret, or the order could be restored from the report
    mixed = stream(key, "sidecar", subject.target.digest).permutation(len(subject.split.included))
    return Audit(
        report,
        {entry.attack.name: entry.scores[mixed] for entry in ran},
        subject.split.included[mixed],
        trained=subject.store.trained,
        found=subject.store.loaded,
    )


def _build(plan: Plan, setting: Setting) -> Subject:
    if plan.data is not None:
        return trained_subject(plan, plan.data, setting)
    if plan.scores is not None:
        return recorded_subject(plan, plan.scores, setting)
    assert plan.checkpoint is not None
    return checkpoint_subject(plan, plan.checkpoint, setting)


def _parts(plan: Plan, subject: Subject, setting: Setting) -> list[Part]:
    candidates = subject.target.candidates
    said = module_logits(subject.target.model, candidates.x, device=setting.place)
    return parts(plan.slices, candidates, np.asarray(said.argmax(axis=1)))


def _attack(
    chosen: Sequence[tuple[Attack, bool]], target: Target, included: Any, plan: Plan, setting: Setting
) -> list[Evidence]:
    """Run attacks on a target; their randomness derives from data, model and plan, so it cannot be drawn again."""
    return [
        gather(
            attack,
            target,
            included,
            required=required,
            rng=stream(0, "attack", attack.name, target.digest, target.candidates.digest, plan.subject_digest),
            device=setting.place,
            on_progress=setting.on_progress,
        )
        for attack, required in chosen
    ]
