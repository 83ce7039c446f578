"""The policy that a report is held against: limits, required attacks, and how strict to be."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reports.errors import ReportError
from reports.measures import EPSILON, measure
from reports.parsing import and_more, parse_toml, read_toml
from reports.suggestions import nearest
from reports.untrusted import printable, quoted

_FIRST = 5  # problems that a message names


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rule(_Part):
    """One limit.

    Attributes:
        measure: Name of a measure of the report ("auc", "tpr_at_fpr_0.01", "advantage"), or "epsilon".
        maximum: The largest acceptable value, in the measure's own unit (rates in 0..1, epsilon in nats). For
            "epsilon" also the word "claims": what was shown must not contradict what is claimed.
        maximum_increase: The largest acceptable growth over a baseline report.
        attack: Name of the one attack that the rule is about; None for every attack that has the measure.
        id: Name of the rule in the output; made from measure and attack where it is not given.
    """

    measure: str = Field(min_length=1)
    maximum: float | Literal["claims"] | None = None
    maximum_increase: float | None = None
    attack: str | None = Field(default=None, min_length=1)
    id: str | None = Field(default=None, min_length=1)

    @property
    def name(self) -> str:
        """The given id, or one made from measure and attack."""
        return self.id or (self.measure if self.attack is None else f"{self.measure}-{self.attack}")

    @model_validator(mode="after")
    def _limits_make_sense(self) -> Self:
        explained = measure(self.measure)
        if self.maximum is None and self.maximum_increase is None:
            raise ValueError(
                f"the rule on {printable(self.measure, longest=80)} sets no limit; give maximum or maximum_increase"
            )
        if self.maximum == "claims" and self.measure != EPSILON:
            raise ValueError(f'maximum = "claims" is for "epsilon", not for {quoted(self.measure)}; give a number')
        if isinstance(self.maximum, float):
            _check_maximum(self.maximum, self.measure, explained.baseline, explained.largest)
        if self.maximum_increase is not None:
            if self.measure == EPSILON:
                raise ValueError("epsilon has a lower bound only, so an increase cannot be bounded; give maximum")
            if not 0 <= self.maximum_increase < (explained.largest or math.inf):
                raise ValueError(
                    f"maximum_increase is {self.maximum_increase} for {self.measure}; it must be at least 0"
                    + (f" and below {explained.largest:g}" if explained.largest else "")
                )
        return self


def _check_maximum(maximum: float, name: str, baseline: float | None, largest: float | None) -> None:
    floor = 0.0 if baseline is None else baseline
    if baseline is not None and maximum < floor:
        why = "a guess already reaches that" if floor else "it cannot be negative"
        raise ValueError(f"maximum is {maximum} for {name}; it must be at least {floor:g}, because {why}")
    if largest is not None and maximum >= largest:
        raise ValueError(f"maximum is {maximum} for {name}; it must be below {largest:g}, or it can never be exceeded")


class Policy(_Part):
    """What a report must satisfy.

    Attributes:
        rules: The limits.
        required_attacks: Names of the attacks that must have run.
        allow_inconclusive: Whether a check that the audit could not decide is let through.
        require_control: Whether a limit only counts as kept where the same attack beat guessing on a model that is
            known to leak.
        fail_on_claims: Whether a finding that contradicts a claim fails the gate, whatever the rules say.
    """

    rules: list[Rule] = Field(default=[], max_length=1_000)
    required_attacks: list[str] = Field(default=[], max_length=1_000)
    allow_inconclusive: bool = False
    require_control: bool = True
    fail_on_claims: bool = True

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.rules and not self.required_attacks:
            raise ValueError("the policy is empty, so nothing could ever fail; give [[rules]] or required_attacks")
        repeated = sorted(name for name, times in Counter(rule.name for rule in self.rules).items() if times > 1)
        if repeated:
            raise ValueError(f"two rules are called {quoted(repeated[0])}; give each an id of its own")
        return self


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        where: list[Any] = [part for part in problem["loc"] if part not in ("float", "literal['claims']")]
        place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
        place = printable(place, longest=120)
        if problem["type"] == "extra_forbidden":
            fields = Rule.model_fields if len(where) > 1 else Policy.model_fields
            lines.append(f"unknown key {quoted(where[-1])} in {place}{nearest(str(where[-1]), list(fields))}")
        else:
            said = printable(problem["msg"].removeprefix("Value error, "))
            lines.append(f"{place}: {said}" if place else said)
    lines = list(dict.fromkeys(lines))
    return and_more(lines[:_FIRST], len(lines))


def load_policy(path: Path) -> Policy:
    """Read a policy from a TOML file of at most 1 MB; raises `ReportError` as `parse_policy` does."""
    return _checked(read_toml(path, error=ReportError))


def parse_policy(text: str) -> Policy:
    """Read a policy from TOML text.

    Args:
        text: The TOML, say `[[rules]]`, `measure = "tpr_at_fpr_0.01"`, `maximum = 0.03`.

    Returns:
        The policy, checked.

    Raises:
        ReportError: If the text is not TOML, a key is unknown (the nearest known one is named), a value is out of its
            range, two rules share an id, or the policy is empty.
    """
    return _checked(parse_toml(text, what="the policy", error=ReportError))


def _checked(found: dict[str, Any]) -> Policy:
    try:
        return Policy.model_validate(found)
    except ValidationError as error:
        raise ReportError(f"the policy is wrong: {_explain(error)}") from None
