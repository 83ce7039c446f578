"""The record of several schemes and budgets on one data set: claimed, proved and shown side by side, and the cost."""

import enum
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from reports.records.document import Document
from reports.records.estimate import Estimate, Strict
from reports.records.report import Epsilons, Finding, Status

COMPARISON_VERSION = "1.0"


class ComparedRun(Strict):
    """One scheme at one budget; one that could not be run has no epsilons, and `reason` says why.

    `label` is what the plan calls the scheme, `varied` the parameter that was varied, if any. `findings` are those
    about epsilon; `leak` is the AUC of the attack that found the most, `leak_by` its title.
    """

    label: str
    scheme: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    varied: str | None = None
    value: float | None = None
    epsilons: Epsilons | None = None
    findings: list[Finding] = Field(default_factory=list)
    accuracy_train: Estimate | None = None
    accuracy_holdout: Estimate | None = None
    leak: Estimate | None = None
    leak_by: str | None = None
    seconds_training: float | None = None
    seconds: float = 0.0
    verdict: Status | None = None
    exit_code: int | None = None
    report: str | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _ran_or_reason(self) -> Self:
        if (self.epsilons is None) is (self.reason is None):
            raise ValueError(f"{self.label}: a run has epsilons, or a reason why it did not come about")
        return self

    @property
    def contradicted(self) -> bool:
        """Whether something that is claimed or proved is contradicted."""
        return any(finding.status is Status.VIOLATED for finding in self.findings)

    @property
    def name(self) -> str:
        """The label with the value of what was varied."""
        return self.label if self.value is None else f"{self.label}, {_words(self.varied)} {self.value:g}"


class Comparison(Document):
    """Several runs on the same records."""

    given_by: ClassVar[str] = "comparison.json of `auditor compare`"

    version: str = COMPARISON_VERSION
    title: str
    data: str
    model: str
    members: int
    nonmembers: int
    runs: list[ComparedRun]
    plan: dict[str, Any]
    plan_digest: str
    device: str
    versions: dict[str, str] = Field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0

    @property
    def contradictions(self) -> list[tuple[ComparedRun, Finding]]:
        """What is claimed or proved and was contradicted."""
        return [(run, found) for run in self.runs for found in run.findings if found.status is Status.VIOLATED]


class Place(enum.StrEnum):
    """Where a run stands between what is promised and what was shown, in one word for the table."""

    CONTRADICTED = "contradicted"
    HOLDS = "not contradicted"
    UNTESTED = "could not be tested"
    NOTHING = "nothing is promised"
    FAILED = "did not run"


def place_of(run: ComparedRun) -> Place:
    """Return where a run stands."""
    if run.epsilons is None:
        return Place.FAILED
    if run.contradicted:
        return Place.CONTRADICTED
    judged = [found.status for found in run.findings if found.status is not Status.INFORMATION]
    if not judged:
        return Place.NOTHING
    return Place.HOLDS if Status.CONSISTENT in judged else Place.UNTESTED


def _words(name: str | None) -> str:
    return (name or "").replace("_", " ")
