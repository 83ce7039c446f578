"""What each stage of an audit hands to the next: built, attacked, measured, judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from attacks.protocol import Attack
from auditor.attempts import Attempt
from auditor.context import RunContext
from auditor.evidence.run_attack import Evidence
from auditor.evidence.subgroups import Part
from auditor.plan.terms import Terms
from auditor.subject import AuditSubject
from auditor.verdicts.epsilon_claims import EpsilonEvidence, Measures
from auditor.white_box.prior_aware import PriorAware
from auditor.white_box.step_bounds import StepAudit
from reports.records.report import AttackStatus, Finding


@dataclass(frozen=True)
class Built:
    """What is audited, and what is asked about it.

    Attributes:
        subject: What is audited, with the truth.
        attacks: What attacks it, each with whether it must run.
        terms: What is asked.
        context: Where it runs.
        attempt: Which audit of its subject this is.
        started: When, ISO 8601 in UTC.
        seconds: Step -> how long it took.
    """

    subject: AuditSubject
    attacks: tuple[tuple[Attack, bool], ...]
    terms: Terms
    context: RunContext
    attempt: Attempt
    started: str
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attacked:
    """What came of the attacks.

    Attributes:
        built: What was attacked.
        evidence: What came of each attack on the target.
        control: What came of those that ran, on the positive control.
        pictures: Reconstructions that may be looked at.
        implied: What the steps of the training show, if they were watched.
        rebuilt: What the prior-aware reconstruction named, if it was asked for.
        seconds: Step -> how long it took.
    """

    built: Built
    evidence: tuple[Evidence, ...]
    control: tuple[Evidence, ...]
    pictures: tuple[Evidence, ...]
    implied: StepAudit | None
    rebuilt: PriorAware | None
    seconds: Mapping[str, float]

    @property
    def ran(self) -> list[Evidence]:
        """Attacks on the target that ran."""
        return [entry for entry in self.evidence if entry.status is AttackStatus.RAN]


@dataclass(frozen=True)
class Measured:
    """What the attacks measure.

    Attributes:
        attacked: What came of the attacks.
        level: Confidence of each interval.
        found: attack -> measure -> estimate on the target.
        control: The same on the positive control; empty without one.
        shown: The epsilon bound.
        parts: Parts of the candidates that are looked at by themselves.
    """

    attacked: Attacked
    level: float
    found: Measures
    control: Measures
    shown: EpsilonEvidence
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Judged:
    """What the measures mean.

    Attributes:
        measured: What was judged.
        findings: What came of it.
    """

    measured: Measured
    findings: tuple[Finding, ...]
