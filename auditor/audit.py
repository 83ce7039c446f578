"""The main job: plan, target, attacks, verdicts, record."""

import datetime
import hashlib
import hmac
import importlib.metadata
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacks.protocol import Attack
from attacks.threat_model import Target
from auditor import curves, metrics
from auditor.evidence import Evidence, gather, measures
from auditor.findings import Measures, Shown, check_limits, headline, judge_all, level_of_intervals, show_epsilon
from auditor.handed_over import checkpoint_subject
from auditor.plan import Plan
from auditor.resolve import parameters_of, resolve_attacks
from auditor.setting import Setting
from auditor.subject import Subject
from auditor.trained import trained_subject
from defenses.ensemble import module_logits
from defenses.guarantee import Guarantee, Unaccounted
from defenses.randomness import stream
from defenses.records import Table
from defenses.training import default_width, resolve_device
from reports.record import (
    AttackResult,
    AttackStatus,
    BoundRecord,
    Epsilons,
    Estimate,
    ExposedRecord,
    GuaranteeRecord,
    Provenance,
    Report,
    Status,
    Timing,
)
from reports.record import Subject as SubjectRecord

EXPOSED = 10
LIBRARIES = ("privacy-auditor", "torch", "numpy", "scipy", "scikit-learn", "dp-accounting")


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
        if one.shadows is not None:
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
    findings = judge_all(evidence, found, control, shown, subject, plan)
    order = list(Status)
    seconds |= {f"attack {entry.attack.name}": entry.seconds for entry in evidence}
    report = Report(
        subject=_subject(plan, subject, setting),
        verdict=min(
            (finding.status for finding in findings if finding.counts), key=order.index, default=Status.INCONCLUSIVE
        ),
        headline=headline(findings, {entry.attack.name: entry.attack.title for entry in evidence}),
        findings=sorted(findings, key=lambda finding: (not finding.counts, order.index(finding.status))),
        attacks=[_result(entry, found, control, setting, subject, level) for entry in evidence],
        epsilons=_epsilons(subject, shown),
        blind_spots=_blind_spots(subject, evidence),
        provenance=_provenance(plan, subject, setting),
        timing=Timing(started=started.isoformat(timespec="seconds"), seconds=seconds),
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
    assert plan.checkpoint is not None
    return checkpoint_subject(plan, plan.checkpoint, setting)


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


def _result(
    entry: Evidence, found: Measures, control: Measures, setting: Setting, subject: Subject, level: float
) -> AttackResult:
    attack = entry.attack
    access = sorted(str(capability) for capability in attack.requires.access)
    access += ["population records"] if attack.requires.population else []
    access += ["training recipe"] if attack.requires.recipe else []
    if entry.status is not AttackStatus.RAN:
        return AttackResult(
            name=attack.name, title=attack.title, paper=attack.paper, status=entry.status, required=entry.required,
            reason=entry.reason, access=access, parameters=parameters_of(attack),
        )  # fmt: skip
    assert entry.claim is not None
    return AttackResult(
        name=attack.name,
        title=attack.title,
        paper=attack.paper,
        status=entry.status,
        required=entry.required,
        access=access,
        parameters=parameters_of(attack),
        measures=dict(found[attack.name]),
        control=dict(control.get(attack.name, {})),
        roc=curves.roc_curve(*entry.by_unit[:2], level=level),
        histogram=curves.histogram(*entry.by_unit[:2]),
        exposed=_exposed(entry, setting, subject),
        notes=list(entry.claim.notes),
    )


def _exposed(entry: Evidence, setting: Setting, subject: Subject) -> list[ExposedRecord]:
    """Return the members that the attack is most sure of, under keyed hashes."""
    members = np.flatnonzero(entry.included)
    first = members[np.argsort(-entry.scores[members], kind="stable")][:EXPOSED]
    records = subject.target.candidates
    digests = records.take(first).row_digests()
    outside = np.sort(entry.scores[~entry.included])
    key = setting.workplace.record_key()
    names = records.kind.classes if isinstance(records.kind, Table) else ()
    return [
        ExposedRecord(
            record=hmac.new(key, digest, hashlib.sha256).hexdigest()[:16],
            score=float(entry.scores[place]),
            label=names[records.y[place]] if names else str(records.y[place]),
            nonmembers_above=int(len(outside) - np.searchsorted(outside, entry.scores[place], side="left")),
        )
        for place, digest in zip(first, digests, strict=True)
    ]


def _subject(plan: Plan, subject: Subject, setting: Setting) -> SubjectRecord:
    target, included = subject.target, subject.split.included
    right = module_logits(target.model, target.candidates.x, device=setting.place).argmax(1) == target.candidates.y
    size = sum(parameter.numel() for parameter in target.model.parameters())
    inside, outside = int(included.sum()), int((~included).sum())
    return SubjectRecord(
        title=plan.title,
        model=f"{plan.model.architecture}, {size:,} parameters",
        model_digest=target.digest,
        data=target.candidates.name,
        data_digest=target.candidates.digest,
        scheme=subject.scheme,
        scheme_parameters=parameters_of(subject.defense),
        members=inside,
        nonmembers=outside,
        population=0 if target.population is None else len(target.population),
        inclusion=subject.split.inclusion.value,
        accuracy_train=metrics.rate(int(right[included].sum()), inside, level=plan.confidence),
        accuracy_holdout=metrics.rate(int(right[~included].sum()), outside, level=plan.confidence),
    )


def _epsilons(subject: Subject, shown: Shown) -> Epsilons:
    bound = None
    if shown.audit is not None:
        audit = shown.audit
        bound = BoundRecord(
            lower=audit.bound.lower,
            delta=audit.bound.delta,
            neighboring=audit.bound.neighboring.name.lower(),
            unit=audit.bound.unit.value,
            confidence=audit.bound.confidence,
            method=audit.bound.method,
            kind=audit.bound.kind.name.lower(),
            assumptions=list(audit.bound.assumptions),
            ceiling=audit.bound.ceiling,
            attack=shown.attack,
            canaries=len(subject.split.canary),
            guesses=audit.guesses,
            correct=audit.correct,
        )
    return Epsilons(
        claimed=_guarantee(subject.claimed),
        proved=_guarantee(subject.proved),
        shown=bound,
        shown_reason=shown.reason,
    )


def _guarantee(found: Guarantee | Unaccounted | None) -> GuaranteeRecord | None:
    if found is None:
        return None
    if isinstance(found, Unaccounted):
        return GuaranteeRecord(reason=found.reason)
    return GuaranteeRecord(
        epsilon=found.epsilon,
        delta=found.delta,
        neighboring=found.neighboring.name.lower(),
        unit=found.unit.value,
        accountant=found.accountant,
        assumptions=list(found.assumptions),
    )


def _blind_spots(subject: Subject, evidence: Sequence[Evidence]) -> list[str]:
    """Say what this audit does not show."""
    found = [
        "It shows leaks, never their absence: another attack, or more shadow models, may find more.",
        "Intervals hold for this one model; another run of the same training may leak more or less.",
        "It measures membership inference only, not reconstruction, attribute inference or extraction.",
    ]
    candidates = subject.target.candidates
    copies = len(candidates) - len(set(candidates.row_digests()))
    if copies:
        found.append(f"{copies} candidates repeat another one exactly; such records are not independent questions.")
    if candidates.units is not None:
        found.append("Records of one group were in or out together, and a group counts once, by its highest score.")
    left_out = [entry.attack.title for entry in evidence if entry.status is not AttackStatus.RAN]
    if left_out:
        found.append(f"Not run: {', '.join(left_out)}; what they would have found is not known.")
    if subject.control is None and subject.control_reason:
        found.append(f"There is no positive control: {subject.control_reason}.")
    return found


def _provenance(plan: Plan, subject: Subject, setting: Setting) -> Provenance:
    subject_key = hashlib.sha256(f"{plan.subject_digest} {subject.target.candidates.digest}".encode()).hexdigest()
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return Provenance(
        plan=_without_paths(plan.model_dump(mode="json")),
        plan_digest=plan.digest,
        attempt=setting.workplace.attempt(subject_key, f"{plan.seed} {subject.target.digest}"),
        seed_commitment=subject.seed_commitment,
        device=_device_name(setting.place),
        settings=_settings(subject, setting),
        versions=versions,
    )


def _settings(subject: Subject, setting: Setting) -> dict[str, Any]:
    """Return what decides the last bits of the numbers."""
    shadows = subject.target.shadows
    width = None if shadows is None else shadows.width or default_width(shadows.job, resolve_device(setting.device))
    return {"torch_threads": torch.get_num_threads(), "stack_width": width, "compiled": False} | dict(subject.remarks)


def _without_paths(content: Any) -> Any:
    """Reduce the sources of a plan to file names: where a file lay is nobody's business."""
    if isinstance(content, dict):
        return {
            name: Path(value).name if name in ("source", "path") and isinstance(value, str) else _without_paths(value)
            for name, value in content.items()
        }
    return [_without_paths(value) for value in content] if isinstance(content, list) else content


def _device_name(place: str) -> str:
    return torch.cuda.get_device_name() if place.startswith("cuda") else "cpu"
