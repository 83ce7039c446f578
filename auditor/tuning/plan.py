"""The plan of a tuning: an audit plan without the one value that is looked for, and [tune], which says how."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from auditor.plan.plan import Plan, parse_table, read_table, table_error
from auditor.plan.resolve import parameter_types, resolve_defense
from auditor.plan.sections import Name, Part
from defenses.errors import PlanError
from reports.untrusted import printable, quoted

LEAST_RUNS = 8


class PrivateScore(Part):
    """How a private selection scores its tries: the share of members found at false alarms `fpr`, plus noise.

    `maximum` is the limit on the score, `noise` the deviation on the count of members found, and `tries` the mean of
    the geometric number of tries.
    """

    maximum: float = Field(gt=0, lt=1)
    noise: float = Field(gt=0)
    fpr: float = Field(default=0.05, gt=0, lt=1)
    tries: float = Field(default=5.0, gt=1)


class Tune(Part):
    """What is looked for and how.

    `knob` is a number of the scheme; `settings` lists its values, or `range` gives the ends, between which `steps`
    values are laid, evenly in their logarithms. `stronger` says which end of the range has the more noise, where the
    knob's name does not. `about` is what the answer is a statement about: one model, which is then released, or the
    scheme at this setting, over `runs` models. `epsilon` limits what gradient canaries may show. A walk's choice is not
    covered by any epsilon; that of the mode "private_selection" is.
    """

    knob: Name
    settings: tuple[float, ...] = Field(default=(), max_length=100)
    range: tuple[float, float] | None = None
    steps: int = Field(default=6, ge=2, le=100)
    stronger: Literal["larger", "smaller"] | None = None
    mode: Literal["fixed_sequence", "bisection", "private_selection"] = "fixed_sequence"
    private_score: PrivateScore | None = None
    about: Literal["model", "scheme"] = "model"
    runs: int = Field(default=LEAST_RUNS, ge=LEAST_RUNS)
    minimum_accuracy: float | None = Field(default=None, gt=0, lt=1)
    epsilon_ceiling: float | None = Field(default=None, gt=0)
    epsilon: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_grid(self) -> Self:
        if bool(self.settings) is (self.range is not None):
            raise ValueError("give either settings, a list of values, or range with its two ends")
        values = self.settings or self.range or ()
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"settings and range must be finite, not {list(values)}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {list(self.range)}; give its lower end first, and another one second")
        if len(set(self.settings)) < len(self.settings):
            raise ValueError(f"settings {list(self.settings)} holds a value twice")
        if (self.mode == "private_selection") is (self.private_score is None):
            raise ValueError("[tune.private_score] belongs to mode 'private_selection', which needs it")
        if self.about == "model" and "runs" in self.model_fields_set:
            raise ValueError("runs is for about = 'scheme'; a statement about one model takes one run per setting")
        if self.settings and "steps" in self.model_fields_set:
            raise ValueError("steps lays values between the ends of range, and settings lists them already")
        return self

    @property
    def replicates(self) -> int:
        """Models that are trained at each setting."""
        return self.runs if self.about == "scheme" else 1


@dataclass(frozen=True)
class TunePlan:
    """A tuning.

    Attributes:
        title: What it is called.
        tune: What is looked for and how.
        settings: Values of the knob, the strongest noise first.
        content: The plan as it was written, JSON-ready.
    """

    title: str
    tune: Tune
    settings: tuple[float, ...]
    content: dict[str, Any]

    def at(self, value: float) -> Plan:
        """Return the audit plan at one value of the knob.

        Raises:
            PlanError: If the scheme does not take it.
        """
        base = {name: part for name, part in self.content.items() if name != "tune"}
        scheme = {**base.get("scheme", {}), self.tune.knob: int(value) if value == int(value) else value}
        title = f"{self.title}: {self.tune.knob} {value:g}"
        return parse_table({**base, "scheme": scheme, "title": title})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def load_tune_plan(path: Path) -> TunePlan:
    """Read the plan of a tuning from a TOML file.

    Raises:
        PlanError: If the file cannot be read, is not TOML, or a key or value does not fit.
    """
    return tune_plan(read_table(path))


def tune_plan(content: dict[str, Any]) -> TunePlan:
    """Make the plan of a tuning from the content of its file; see `load_tune_plan`."""
    if "tune" not in content:
        raise PlanError("key 'tune' is missing: [tune] says which knob of the scheme is looked for, and where")
    try:
        tune = Tune.model_validate(content["tune"])
    except ValidationError as error:
        raise table_error(error, Tune, "tune") from error
    for name, why in (("data", "a tuning trains its targets"), ("scheme", "it turns a knob of a scheme")):
        if not isinstance(content.get(name), dict):
            raise PlanError(f"key {name!r} is missing: {why}")
    scheme, knob = content["scheme"], tune.knob
    if knob in scheme:
        raise PlanError(
            f"tune: {knob} is looked for, and [scheme] fixes it at {quoted(scheme[knob])}; leave it out there"
        )
    control = content.get("control")
    if isinstance(control, dict) and control.get("enabled") is False:
        raise PlanError("control: a tuning needs it, or nobody knows whether its attacks can see a leak at all")
    whole = _is_whole(str(scheme.get("name", "none")), knob)
    settings = _ordered(tune, _laid(tune, whole=whole))
    plan = TunePlan(str(content.get("title", "tuning")), tune, settings, content)
    for value in settings:
        resolve_defense(plan.at(value))
    if tune.epsilon is not None and plan.at(settings[0]).white_box is None:
        raise PlanError(
            "tune: a limit on epsilon needs [white_box]: what a membership attack shows is a lower bound, which can be "
            "above a limit but never surely below it"
        )
    return plan


def _is_whole(scheme: str, knob: str) -> bool:
    """Say whether a knob counts something; refuse one that the scheme does not have, or that is not a number."""
    types = parameter_types(scheme)
    if knob not in types:
        numbers = sorted(name for name, kinds in types.items() if kinds & {int, float})
        raise PlanError(
            f"tune: scheme {scheme!r} has no {quoted(knob)}; its numbers are {', '.join(numbers) or 'none'}"
        )
    if not types[knob] & {int, float} or bool in types[knob]:
        raise PlanError(f"tune: {quoted(knob)} of scheme {scheme!r} is not a number")
    return float not in types[knob]


def _laid(tune: Tune, *, whole: bool) -> list[float]:
    if tune.range is None:
        return [float(value) for value in tune.settings]
    low, high = tune.range
    laid = np.geomspace(low, high, tune.steps) if low > 0 else np.linspace(low, high, tune.steps)
    if whole:
        return [float(value) for value in np.unique(np.rint(laid))]
    rounded = {min(max(float(f"{value:.4g}"), low), high) for value in laid}
    return sorted(rounded)


def _ordered(tune: Tune, values: list[float]) -> tuple[float, ...]:
    """Return values with the strongest noise first."""
    stronger = tune.stronger
    if stronger is None:
        if "epsilon" in tune.knob:
            stronger = "smaller"
        elif "noise" in tune.knob or "sigma" in tune.knob:
            stronger = "larger"
        else:
            raise PlanError(
                f"tune: whether a larger {printable(tune.knob, longest=80)} means more noise or less is not known; "
                "give stronger = 'larger' or 'smaller'"
            )
    return tuple(sorted(values, reverse=stronger == "larger"))
