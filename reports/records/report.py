"""The report record: the one versioned schema that crosses from a run to its readers.

HTML, Markdown, JUnit, SARIF and the gate are pure functions of a `Report`. An estimate is never a bare float, a missing
value carries its reason, and infinities are written as the strings "Infinity" and "-Infinity".
"""

import enum
import itertools
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from reports.errors import ReportError
from reports.exit_codes import ExitCode, worst
from reports.records.document import Document
from reports.records.estimate import Count as Count
from reports.records.estimate import Estimate as Estimate
from reports.records.estimate import Share as Share
from reports.records.estimate import Strict as Strict
from reports.records.gallery import GalleryItem
from reports.records.grounds import Trusted
from reports.untrusted import quoted

SCHEMA_VERSION = "2.0"

Few = Field(max_length=200)
"""Of what a page shows one by one."""

Many = Field(max_length=5_000)
"""Of what stands in a list or a curve."""


class Status(enum.StrEnum):
    """What a finding says; the worst comes first."""

    VIOLATED = "violated"  # the lower bound on epsilon is above the guarantee
    LEAKS = "leaks"  # the lower confidence limit is above the threshold
    ERROR = "error"  # an attack that was asked for failed or was killed
    INCONCLUSIVE = "inconclusive"  # the interval straddles the limit, or the audit could not have found it
    NOT_COMPARABLE = "not_comparable"  # delta, unit or neighbouring relation differ
    CONSISTENT = "consistent"  # no contradiction found; never "safe"
    WITHIN = "within"  # the upper confidence limit is at or below the threshold
    INFORMATION = "information"  # nothing was judged

    @property
    def severity(self) -> int:
        """Place in the order of severities: 0 is the worst."""
        return list(Status).index(self)


class Finding(Strict):
    """One judged statement.

    `measure` is a name of `AttackResult.measures`, or "epsilon". `control` is what the same measure found on a model
    that is known to leak; where it is missing, `control_reason` says why. `counts` is false for the silence of an
    attack that cannot see a leak, where another one carries the same limit: it is shown and decides nothing.
    """

    code: str
    status: Status
    title: str
    sentence: str
    attack: str | None = None
    measure: str | None = None
    limit: float | None = None
    found: Estimate | None = None
    control: Estimate | None = None
    control_reason: str | None = None
    counts: bool = True
    more: str = ""


class RocCurve(Strict):
    """Attack ROC with a pointwise-simultaneous band; all lists have one length, `fpr` ascending."""

    fpr: Annotated[list[Share], Many]
    tpr: Annotated[list[Share], Many]
    tpr_low: Annotated[list[Share], Many]
    tpr_high: Annotated[list[Share], Many]
    level: Share
    method: str

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = {len(self.fpr), len(self.tpr), len(self.tpr_low), len(self.tpr_high)}
        if len(lengths) != 1:
            raise ValueError(f"fpr, tpr, tpr_low and tpr_high have lengths {sorted(lengths)}; they must have one")
        if any(left > right for left, right in itertools.pairwise(self.fpr)):
            raise ValueError("fpr must not fall")
        return self


class Histogram(Strict):
    """Counts of members' and non-members' scores over common bins; `edges` is one longer than the counts."""

    edges: Annotated[list[float], Many]
    members: Annotated[list[Count], Many]
    nonmembers: Annotated[list[Count], Many]

    @model_validator(mode="after")
    def _lengths_match(self) -> Self:
        bins = len(self.edges) - 1
        if len(self.members) != len(self.nonmembers) or (self.members and len(self.members) != bins):
            raise ValueError(
                f"{len(self.edges)} edges for {len(self.members)} and {len(self.nonmembers)} counts; there must be one "
                "edge more than counts"
            )
        if any(left >= right for left, right in itertools.pairwise(self.edges)):
            raise ValueError("edges must rise")
        return self


class ExposedRecord(Strict):
    """One of the members that the attack is most sure of, named by a keyed hash (the key is not in the report).

    Neither its score, nor its place among them, nor its label is told: whoever has the model could look for the record
    by any of them.
    """

    record: str
    false_alarms_at_most: Share = Field(
        description="upper confidence limit of the share of non-members that a threshold which finds this record would "
        "accuse, rounded up to 1, 2 or 5 times a power of ten"
    )
    level: Share = Field(description="confidence of these limits together")


class Slice(Strict):
    """What an attack finds within a part of the candidates: a class, right predictions, a value of a column."""

    by: str
    value: str
    members: Count
    nonmembers: Count
    measures: Annotated[dict[str, Estimate], Few]


class AttackStatus(enum.StrEnum):
    """Whether an attack ran."""

    RAN = "ran"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"


class CopyRecord(Strict):
    """Whether reconstructions are nearer to training records than to others.

    `least_seen` is the smallest share of planted copies that would have been flagged, `class_means` the AUC of class
    means in place of the reconstructions.
    """

    reconstructions: Count
    similarity: str
    copy_rate: float
    expected_copy_rate: float
    p_value: Share
    tpr_p_value: Share
    copy_p_value: Share
    least_seen: float | None
    class_means: float | None = None


class QueryPoint(Strict):
    """How faithful a copy of the model was after so many queries."""

    queries: Count
    fidelity: Estimate


class AttackResult(Strict):
    """One attack: what it was run on, what it needed, how it was set, what it found."""

    name: str
    title: str
    paper: str
    status: AttackStatus
    required: bool = True
    reason: str | None = None
    access: list[str] = []
    parameters: dict[str, Any] = {}
    measures: Annotated[dict[str, Estimate], Few] = {}
    control: Annotated[dict[str, Estimate], Few] = {}
    roc: RocCurve | None = None
    histogram: Histogram | None = None
    exposed: Annotated[list[ExposedRecord], Few] = []
    slices: Annotated[list[Slice], Many] = []
    notes: Annotated[list[str], Many] = []
    copies: CopyRecord | None = None
    about: str = "the trained model"
    queries: Annotated[list[QueryPoint], Many] = []


class GuaranteeRecord(Strict):
    """A guarantee as stated: `epsilon` is null with a reason where none can be computed."""

    epsilon: float | None = None
    delta: float | None = None
    neighboring: str | None = None
    unit: str | None = None
    accountant: str = ""
    assumptions: Annotated[list[str], Many] = []
    reason: str | None = None


class BoundRecord(Strict):
    """A lower bound on epsilon that an attack showed; `ceiling` is the largest that this many trials could give."""

    lower: float
    delta: float
    neighboring: str
    unit: str
    confidence: float
    method: str
    kind: str
    assumptions: Annotated[list[str], Many] = []
    ceiling: float
    attack: str | None = None
    canaries: Count | None = None
    guesses: Count | None = None
    correct: Count | None = None


class Epsilons(Strict):
    """The three numbers side by side, and what single steps imply where they were watched."""

    claimed: GuaranteeRecord | None = None
    proved: GuaranteeRecord | None = None
    shown: BoundRecord | None = None
    shown_reason: str | None = None
    implied: BoundRecord | None = None


class Subject(Strict):
    """What was audited: enough to recognise it, nothing that gives a record away.

    `model_digest` is that of what is released. `data_digest` is keyed with a secret of the user: reports of one user
    about the same records have the same, and whoever holds records cannot tell whether it is theirs.
    """

    title: str
    model: str
    model_digest: str
    data: str
    data_digest: str
    scheme: str
    scheme_parameters: dict[str, Any] = {}
    members: Count
    nonmembers: Count
    population: Count
    inclusion: str
    accuracy_train: Estimate | None = None
    accuracy_holdout: Estimate | None = None


class Provenance(Strict):
    """How to get the same report again."""

    plan: dict[str, Any]
    plan_digest: str
    attempt: int
    attempt_note: str | None = None
    seed_commitment: str
    device: str
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}


class Timing(Strict):
    """Times, and what was not done again; the only part that differs between two runs of one plan.

    `attempts_since` is when the list of attempts was begun, `reused` counts what an earlier run had kept, by kind.
    """

    started: str
    seconds: dict[str, float] = {}
    attempts_since: str | None = None
    reused: dict[str, int] = {}


_OF_STATUS = {
    Status.VIOLATED: ExitCode.EXCEEDED,
    Status.LEAKS: ExitCode.EXCEEDED,
    Status.ERROR: ExitCode.INCOMPLETE,
    Status.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Status.NOT_COMPARABLE: ExitCode.INCONCLUSIVE,
    Status.CONSISTENT: ExitCode.PASS,
    Status.WITHIN: ExitCode.PASS,
}


class Report(Document):
    """One audit, whole.

    `verdict` is the worst finding that counts; `headline` is its one sentence with numbers. `blind_spots` says what
    this audit does not show, `trusted` what it was told and did not see.
    """

    given_by: ClassVar[str] = "report.json of `auditor audit`"

    schema_version: str = SCHEMA_VERSION
    subject: Subject
    verdict: Status
    headline: str
    findings: Annotated[list[Finding], Many]
    attacks: Annotated[list[AttackResult], Few]
    epsilons: Epsilons
    blind_spots: Annotated[list[str], Many]
    provenance: Provenance
    timing: Timing
    gallery: Annotated[list[GalleryItem], Many] = []
    trusted: Annotated[list[Trusted], Many] = []

    @classmethod
    def _checked(cls, found: Any) -> Self:
        version = found.get("schema_version") if isinstance(found, dict) else None
        if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ReportError(
                f"schema version is {quoted(version)}; this program reads {SCHEMA_VERSION}: audit again with it"
            )
        return super()._checked(found)

    @property
    def exit_code(self) -> ExitCode:
        """What `auditor audit` ends with: the worst of the findings and of the attacks that did not run.

        PASS only if something was judged, everything that was judged holds, and every required attack ran.
        """
        codes = [
            _OF_STATUS[finding.status] for finding in self.findings if finding.counts and finding.status in _OF_STATUS
        ]
        for attack in self.attacks:
            left_out = attack.status is AttackStatus.NOT_APPLICABLE and attack.required
            if attack.status is AttackStatus.FAILED or left_out:
                codes.append(ExitCode.INCOMPLETE)
        return worst(codes)
