"""What the gate decided: one row per check, one exit code, one sentence."""

import enum
from dataclasses import dataclass

from reports.exit_codes import ExitCode
from reports.records.report import Estimate


class Outcome(enum.StrEnum):
    """What became of one check, in the order in which they win."""

    MISFIT = "misfit"  # the policy asks for something that does not fit the report
    NOT_COMPARABLE = "not comparable"  # the baseline cannot be compared
    FAIL = "fail"
    INCOMPLETE = "incomplete"  # an attack failed, or a required one did not run
    INCONCLUSIVE = "inconclusive"
    PASS = "pass"


EXIT_CODES = {
    Outcome.MISFIT: ExitCode.USAGE,
    Outcome.NOT_COMPARABLE: ExitCode.NOT_COMPARABLE,
    Outcome.FAIL: ExitCode.EXCEEDED,
    Outcome.INCOMPLETE: ExitCode.INCOMPLETE,
    Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Outcome.PASS: ExitCode.PASS,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check.

    Attributes:
        rule: Id of the rule, or "claims", "attacks", "grounds".
        outcome: What became of it.
        sentence: Why, with numbers.
        attack: Name of the attack, where it is about one.
        measure: Name of the measure, where it is about one.
        limit: What it was held against, as written for a reader; empty where there is none.
        found: The estimate that was held against it.
        tolerated: Whether an inconclusive outcome is let through by the policy.
    """

    rule: str
    outcome: Outcome
    sentence: str
    attack: str | None = None
    measure: str | None = None
    limit: str = ""
    found: Estimate | None = None
    tolerated: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """What this row alone would end with."""
        return ExitCode.PASS if self.tolerated else EXIT_CODES[self.outcome]

    @property
    def label(self) -> str:
        """Name of the check: the rule and, where there is one, the attack."""
        return self.rule if self.attack is None else f"{self.rule} [{self.attack}]"


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The whole decision.

    Attributes:
        exit_code: What the command ends with.
        rows: The checks, those that decide first.
        sentence: The decision and its first reason.
    """

    exit_code: ExitCode
    rows: tuple[Row, ...]
    sentence: str
