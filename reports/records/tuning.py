"""The record of a tuning: every setting that was looked at, by which probe it was decided, and what came of it."""

import enum
from typing import Any, ClassVar

from pydantic import Field

from reports.exit_codes import ExitCode
from reports.records.document import Document
from reports.records.estimate import Estimate, Strict
from reports.records.report import Status

TUNING_VERSION = "1.0"


class Outcome(enum.StrEnum):
    """What came of a tuning."""

    FOUND = "a setting was found"
    ALL = "every setting passes"
    NONE = "no setting passes"
    TOO_INACCURATE = "what passes is not accurate enough"
    UNCONFIRMED = "the choice was not confirmed"
    UNDECIDED = "it could not be decided"
    BLIND = "the probes could not have seen the leak"
    FAILED = "an attack failed"


EXIT_CODES = {
    Outcome.FOUND: ExitCode.PASS,
    Outcome.ALL: ExitCode.PASS,
    Outcome.NONE: ExitCode.EXCEEDED,
    Outcome.TOO_INACCURATE: ExitCode.EXCEEDED,
    Outcome.UNCONFIRMED: ExitCode.INCONCLUSIVE,
    Outcome.UNDECIDED: ExitCode.INCONCLUSIVE,
    Outcome.BLIND: ExitCode.INCONCLUSIVE,
    Outcome.FAILED: ExitCode.INCOMPLETE,
}


class Stage(enum.StrEnum):
    """What a setting was looked at for."""

    WALK = "walk"
    FINAL = "final"


class Probe(Strict):
    """One limit and one attack that may exceed it, at one setting.

    `found` is about one model, or the mean over several; `runs` are the figures of each. `counts` is false for what
    decides nothing here; the sentence says why.
    """

    attack: str
    title: str
    measure: str
    limit: float
    found: Estimate
    status: Status
    sentence: str
    runs: list[float | None] = Field(default_factory=list)
    counts: bool = True

    @property
    def key(self) -> tuple[str, str, float]:
        """What tells it from other probes."""
        return self.attack, self.measure, self.limit


class Sight(Strict):
    """What a probe was seen to find before the walk: on the model without protection, and of a planted leak.

    `planted` is how often, of 20 plantings of a leak as large as the limit (or as the control's, if that is smaller),
    it was told from none; None where the probe's own copies are planted in every look.
    """

    attack: str
    title: str
    measure: str
    limit: float
    control: Estimate
    planted: int | None = None
    sees: bool
    sentence: str


class Look(Strict):
    """One setting that was looked at.

    `bound_by`, `bound_measure` and `bound_limit` name the probe whose figure came closest to its limit, or went
    furthest beyond it. `epsilon` is what is proved of each model, or None with the reason.
    """

    stage: Stage
    value: float
    verdict: Status
    sentence: str
    probes: list[Probe]
    bound_by: str | None = None
    bound_measure: str | None = None
    bound_limit: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_reason: str | None = None
    shown: float | None = None
    implied: float | None = None
    accuracy_train: Estimate | None = None
    accuracy_holdout: Estimate | None = None
    models: int = 1
    seconds: float = 0.0
    reports: list[str] = Field(default_factory=list)

    @property
    def bound(self) -> Probe | None:
        """The probe that decided."""
        key = (self.bound_by, self.bound_measure, self.bound_limit)
        return next((probe for probe in self.probes if probe.key == key), None)


class Selection(Strict):
    """The one try of a private selection that may be told, and what choosing and one more model cost together.

    `score` is the noisy share of members found, `limit` what it was held to; `epsilon` is None where it has no price,
    and `reason` says why.
    """

    value: float
    score: float
    limit: float
    passes: bool
    epsilon: float | None = None
    delta: float | None = None
    reason: str | None = None


class Tuning(Document):
    """A tuning: the settings, the strongest noise first, and the looks in the order in which they were taken."""

    given_by: ClassVar[str] = "tuning.json of `auditor tune`"

    version: str = TUNING_VERSION
    title: str
    data: str
    model: str
    pool: int
    scheme: str
    knob: str
    settings: list[float]
    above_ceiling: list[float] = Field(default_factory=list)
    mode: str
    about: str
    models: int
    confidence: float
    looks_at_most: int
    epsilon_ceiling: float | None = None
    minimum_accuracy: float | None = None
    accuracy_unprotected: Estimate | None = None
    sights: list[Sight] = Field(default_factory=list)
    looks: list[Look] = Field(default_factory=list)
    selection: Selection | None = None
    outcome: Outcome
    answer: float | None = None
    headline: str
    remedies: list[str] = Field(default_factory=list)
    price: list[str] = Field(default_factory=list)
    trainings: dict[str, int] = Field(default_factory=dict)
    plan: dict[str, Any]
    plan_digest: str
    device: str
    versions: dict[str, str] = Field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0

    @property
    def walked(self) -> list[Look]:
        """The looks of the walk."""
        return [look for look in self.looks if look.stage is Stage.WALK]

    @property
    def final(self) -> Look | None:
        """The look at a fresh split that decided, if it came to that."""
        return next((look for look in self.looks if look.stage is Stage.FINAL), None)

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return EXIT_CODES[self.outcome]
