"""The record of an audit: what was found, put into the one schema that readers see."""

import importlib.metadata
import platform
from typing import Any

import torch

from attacks.capabilities import Capability
from attacks.shadows import ShadowSource
from auditor.attempts import LOST
from auditor.epsilon.bound import EpsilonBound
from auditor.evidence.exposed_records import exposed, keyed
from auditor.evidence.gallery import gallery
from auditor.evidence.run_attack import Evidence
from auditor.evidence.subgroups import slices
from auditor.files.paths import plan_without_paths, without_paths
from auditor.plan.resolve import parameters_of
from auditor.stages import Attacked, Built, Judged, Measured
from auditor.statistics import curves, membership
from auditor.subject import AuditSubject
from auditor.verdicts.epsilon_claims import EpsilonEvidence, of_the_model
from auditor.verdicts.findings import headline
from auditor.verdicts.limitations import limitations
from auditor.verdicts.taken_on_trust import taken_on_trust
from auditor.white_box.step_bounds import StepAudit
from defenses.guarantee import Guarantee, Unaccounted
from reports.records.report import (
    AttackResult,
    AttackStatus,
    BoundRecord,
    Epsilons,
    GuaranteeRecord,
    Provenance,
    QueryPoint,
    Report,
    Status,
    Timing,
)
from reports.records.report import Subject as SubjectRecord

LIBRARIES = ("privacy-auditor", "torch", "numpy", "scipy", "scikit-learn", "dp-accounting")


def build_report(judged: Judged) -> Report:
    """Write down an audit.

    Args:
        judged: What was found, with everything that it was found of.

    Returns:
        The record; its verdict is the worst finding that counts.
    """
    measured, findings = judged.measured, judged.findings
    attacked = measured.attacked
    built = attacked.built
    order = list(Status)
    counting = [finding.status for finding in findings if finding.counts]
    return Report(
        subject=_subject(built),
        verdict=min(counting, key=order.index, default=Status.INCONCLUSIVE),
        headline=headline(findings, {entry.attack.name: entry.attack.title for entry in attacked.evidence}),
        findings=sorted(findings, key=lambda finding: (not finding.counts, order.index(finding.status))),
        attacks=[_result(entry, measured) for entry in attacked.evidence],
        epsilons=_epsilons(built.subject, measured.shown, attacked.implied),
        blind_spots=limitations(built.subject, attacked.evidence),
        provenance=_provenance(built),
        timing=_timing(attacked),
        gallery=gallery(attacked.pictures, synthetic=not built.context.include_records),
        trusted=taken_on_trust(built.subject, findings),
    )


def _timing(attacked: Attacked) -> Timing:
    evidence, built = [*attacked.evidence, *attacked.control], attacked.built
    counts = {"models": built.subject.store.loaded, "attacks": sum(entry.reused for entry in evidence)}
    return Timing(
        started=built.started,
        seconds=dict(attacked.seconds),
        reused={name: count for name, count in counts.items() if count},
        attempts_since=built.attempt.since,
    )


def _result(entry: Evidence, measured: Measured) -> AttackResult:
    attack, built, level = entry.attack, measured.attacked.built, measured.level
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
    sliced = ranks and of_the_model(entry, built.subject)
    return AttackResult(
        name=attack.name,
        title=attack.title,
        paper=attack.paper,
        status=entry.status,
        required=entry.required,
        access=access,
        parameters=parameters_of(attack),
        measures=dict(measured.found[attack.name]),
        control=dict(measured.control.get(attack.name, {})),
        roc=curves.roc_curve(*entry.by_unit[:2], level=level) if ranks else None,
        histogram=curves.histogram(*entry.by_unit[:2]) if ranks else None,
        exposed=exposed(entry, built.context.workspace.record_key(), level=level) if ranks else [],
        slices=slices(entry, measured.parts, level=level) if sliced else [],
        notes=[*map(without_paths, entry.claim.notes), *entry.joined.remarks],
        copies=entry.joined.copies,
        about=entry.question.about,
        queries=[QueryPoint(queries=spent, fidelity=at) for spent, at in entry.joined.curve(level=level)],
    )


def _subject(built: Built) -> SubjectRecord:
    subject, context = built.subject, built.context
    target, included, key = subject.target, subject.split.included, context.workspace.record_key()
    inside, outside = int(included.sum()), int((~included).sum())
    accuracies = {}
    if target.can(Capability.LABELS):
        right = target.logits(target.candidates.x, device=context.place).argmax(1) == target.candidates.y
        for name, side, count in (("train", included, inside), ("holdout", ~included, outside)):
            accuracies[f"accuracy_{name}"] = membership.rate(
                int(right[side].sum()), count, level=built.terms.confidence
            )
    private = subject.description.digest_is_private
    return SubjectRecord(
        title=built.terms.title,
        model=subject.description.called,
        model_digest=keyed(key, "outputs", target.digest) if private else target.digest,
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


def _epsilons(subject: AuditSubject, shown: EpsilonEvidence, implied: StepAudit | None) -> Epsilons:
    bound = None
    if shown.audit is not None:
        audit = shown.audit
        counts = {"canaries": len(subject.split.included), "guesses": audit.guesses, "correct": audit.correct}
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


def _provenance(built: Built) -> Provenance:
    terms, subject, context = built.terms, built.subject, built.context
    return Provenance(
        plan=plan_without_paths(dict(terms.document)),
        plan_digest=terms.digest,
        attempt=built.attempt.number,
        attempt_note=LOST if built.attempt.lost else None,
        seed_commitment=subject.seed_commitment,
        device=device_name(context.place),
        settings=plan_without_paths(_settings(subject)),
        versions=versions(),
    )


def _settings(subject: AuditSubject) -> dict[str, Any]:
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
