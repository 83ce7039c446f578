"""The record of an audit: what was found, put into the one schema that readers see."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attacks.shadows import ShadowSource
from attacks.threat_model import Capability, Target, closure
from auditor.attempts import LOST, Attempt
from auditor.context import Setting
from auditor.epsilon.bound import EpsilonBound
from auditor.evidence.exposed_records import exposed, keyed
from auditor.evidence.run_attack import Evidence
from auditor.evidence.subgroups import Part, slices
from auditor.files.paths import plan_without_paths, without_paths
from auditor.plan.plan import Plan
from auditor.plan.resolve import parameters_of
from auditor.statistics import membership, roc
from auditor.subject import Subject
from auditor.verdicts.epsilon_claims import Measures, Shown, of_the_model
from auditor.verdicts.findings import headline
from auditor.verdicts.limitations import blind_spots
from auditor.verdicts.taken_on_trust import taken_on_trust
from auditor.white_box.step_bounds import StepAudit
from defenses.ensemble import module_logits
from defenses.guarantee import Guarantee, Unaccounted
from reports.records.report import (
    AttackResult,
    AttackStatus,
    BoundRecord,
    Epsilons,
    Finding,
    GalleryItem,
    GuaranteeRecord,
    Provenance,
    QueryPoint,
    Report,
    Status,
    Timing,
)
from reports.records.report import Subject as SubjectRecord

LIBRARIES = ("privacy-auditor", "torch", "numpy", "scipy", "scikit-learn", "dp-accounting")


@dataclass(frozen=True)
class Outcome:
    """Everything that an audit found.

    Attributes:
        evidence: What came of each attack on the target.
        found: attack -> measure -> estimate on the target.
        control: The same on the positive control; empty without one.
        shown: The epsilon bound.
        findings: What was judged.
        attempt: Which audit of its subject this is.
        level: Confidence of each interval.
        parts: Parts of the candidates that are looked at by themselves.
        implied: What the steps of the training show, if they were watched.
        gallery: Reconstructions to look at.
    """

    evidence: Sequence[Evidence]
    found: Measures
    control: Measures
    shown: Shown
    findings: Sequence[Finding]
    attempt: Attempt
    level: float
    parts: Sequence[Part] = ()
    implied: StepAudit | None = None
    gallery: Sequence[GalleryItem] = ()


def build_report(plan: Plan, setting: Setting, subject: Subject, outcome: Outcome, timing: Timing) -> Report:
    """Write down an audit.

    Args:
        plan: What was asked.
        setting: Where it ran.
        subject: What was audited.
        outcome: What was found.
        timing: When, and how long it took.

    Returns:
        The record; its verdict is the worst finding that counts.
    """
    order = list(Status)
    counting = [finding.status for finding in outcome.findings if finding.counts]
    return Report(
        subject=_subject(plan, subject, setting),
        verdict=min(counting, key=order.index, default=Status.INCONCLUSIVE),
        headline=headline(outcome.findings, {entry.attack.name: entry.attack.title for entry in outcome.evidence}),
        findings=sorted(outcome.findings, key=lambda finding: (not finding.counts, order.index(finding.status))),
        attacks=[_result(entry, outcome, setting, subject) for entry in outcome.evidence],
        epsilons=_epsilons(subject, outcome.shown, outcome.implied),
        blind_spots=blind_spots(plan, subject, outcome.evidence),
        provenance=_provenance(plan, subject, setting, outcome.attempt),
        timing=timing.model_copy(update={"attempts_since": outcome.attempt.since}),
        gallery=list(outcome.gallery),
        trusted=taken_on_trust(plan, subject, outcome.findings),
    )


def _result(entry: Evidence, outcome: Outcome, setting: Setting, subject: Subject) -> AttackResult:
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
    assert entry.joined is not None
    ranks = entry.ranking is not None
    return AttackResult(
        name=attack.name,
        title=attack.title,
        paper=attack.paper,
        status=entry.status,
        required=entry.required,
        access=access,
        parameters=parameters_of(attack),
        measures=dict(outcome.found[attack.name]),
        control=dict(outcome.control.get(attack.name, {})),
        roc=roc.roc_curve(*entry.by_unit[:2], level=outcome.level) if ranks else None,
        histogram=roc.histogram(*entry.by_unit[:2]) if ranks else None,
        exposed=exposed(entry, setting.workplace.record_key(), level=outcome.level) if ranks else [],
        slices=slices(entry, outcome.parts, level=outcome.level) if ranks and of_the_model(entry, subject) else [],
        notes=[*map(without_paths, entry.claim.notes), *entry.joined.remarks],
        copies=entry.joined.copies,
        about=entry.question.about,
        queries=[QueryPoint(queries=spent, fidelity=at) for spent, at in entry.joined.curve(level=outcome.level)],
    )


def _subject(plan: Plan, subject: Subject, setting: Setting) -> SubjectRecord:
    target, included, key = subject.target, subject.split.included, setting.workplace.record_key()
    inside, outside = int(included.sum()), int((~included).sum())
    accuracies = {}
    if Capability.LABELS in closure(target.access):
        right = module_logits(target.model, target.candidates.x, device=setting.place).argmax(1) == target.candidates.y
        for name, side, count in (("train", included, inside), ("holdout", ~included, outside)):
            accuracies[f"accuracy_{name}"] = membership.rate(int(right[side].sum()), count, level=plan.confidence)
    return SubjectRecord(
        title=plan.title,
        model=_model(plan, target),
        # Of recorded outputs it is the digest of what was said about each record, which only its owner shall recognise.
        model_digest=target.digest if plan.scores is None else keyed(key, "outputs", target.digest),
        data=target.candidates.name,
        data_digest=keyed(key, "data", target.candidates.digest),
        scheme=subject.scheme,
        scheme_parameters=parameters_of(subject.defense),
        members=inside,
        nonmembers=outside,
        population=0 if target.population is None else len(target.population),
        inclusion=subject.split.inclusion.value,
        **accuracies,
    )


def _model(plan: Plan, target: Target) -> str:
    if plan.model is not None:
        size = sum(parameter.numel() for parameter in target.model.parameters())
        return f"{plan.model.architecture}, {size:,} parameters"
    return "recorded outputs" if target.synthetic is None else f"{len(target.synthetic):,} released records, no model"


def _epsilons(subject: Subject, shown: Shown, implied: StepAudit | None) -> Epsilons:
    bound = None
    if shown.audit is not None:
        audit = shown.audit
        counts = {"canaries": len(subject.split.canary), "guesses": audit.guesses, "correct": audit.correct}
        bound = _bound(audit.bound, attack=shown.attack, **counts)
    return Epsilons(
        claimed=_guarantee(subject.claimed),
        proved=_guarantee(subject.proved),
        shown=bound,
        shown_reason=shown.reason,
        implied=None if implied is None else _bound(implied.gaussian, attack="gradient canaries"),
    )


def _bound(found: EpsilonBound, *, attack: str | None, **counts: int) -> BoundRecord:
    return BoundRecord(
        lower=found.lower,
        delta=found.delta,
        neighboring=found.neighboring.name.lower(),
        unit=found.unit.value,
        confidence=found.confidence,
        method=found.method,
        kind=found.kind.name.lower(),
        assumptions=list(found.assumptions),
        ceiling=found.ceiling,
        attack=attack,
        **counts,
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


def versions() -> dict[str, str]:
    """Return what made a record, by name."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def _provenance(plan: Plan, subject: Subject, setting: Setting, attempt: Attempt) -> Provenance:
    return Provenance(
        plan=plan_without_paths(plan.model_dump(mode="json")),
        plan_digest=plan.digest,
        attempt=attempt.number,
        attempt_note=LOST if attempt.lost else None,
        seed_commitment=subject.seed_commitment,
        device=device_name(setting.place),
        settings=plan_without_paths(_settings(subject, setting)),
        versions=versions(),
    )


def _settings(subject: Subject, setting: Setting) -> dict[str, Any]:
    """Return what decides the last bits of the numbers."""
    shadows = subject.target.shadows
    if not isinstance(shadows, ShadowSource):
        return {"torch_threads": torch.get_num_threads()} | dict(subject.remarks)
    layout = shadows.layout
    return {
        "torch_threads": layout.threads,
        "stack_width": layout.width,
        "processes": layout.workers,
        "compiled": layout.compiled,
    } | dict(subject.remarks)


def device_name(place: str) -> str:
    """Return what a device is called in records."""
    return torch.cuda.get_device_name() if place.startswith("cuda") else "cpu"
