"""The plan of a comparison: an audit plan without a scheme, and a list of schemes with the budgets to try."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from auditor.plan.plan import Plan, parse_table, read_table, table_error
from auditor.plan.sections import Name, Part, PriorAware, WhiteBox
from defenses.errors import PlanError
from reports.parsing import problems
from reports.untrusted import printable, quoted

MOST = 100
"""Schemes of a comparison, and values of one."""

# Parts of a plan that watch steps; in a comparison they are for the schemes whose steps can be tested.
WATCHING: dict[str, type[Part]] = {"white_box": WhiteBox, "prior_aware": PriorAware}


class Entry(Part):
    """One scheme: its name, what it is called here, what of it varies, and its other fields.

    `training` overrides keys of [training] for this scheme: each needs its own learning rate.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    label: Name | None = None
    vary: Name | None = None
    values: tuple[float, ...] = Field(default=(), max_length=MOST)
    training: dict[str, Any] = Field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the scheme's own fields."""
        return dict(self.__pydantic_extra__ or {})


@dataclass(frozen=True)
class Cell:
    """One audit of a comparison.

    Attributes:
        label: What its scheme is called.
        varied: The field that varies, or None.
        value: Its value here.
        plan: The audit's own plan.
        watched: What watches steps, for schemes whose steps can be tested: `white_box`, `prior_aware`.
    """

    label: str
    varied: str | None
    value: float | None
    plan: Plan
    watched: dict[str, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparePlan:
    """A comparison.

    Attributes:
        title: What it is called.
        cells: Its audits, in order.
        content: The plan as it was written, JSON-ready.
    """

    title: str
    cells: tuple[Cell, ...]
    content: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def load_compare_plan(path: Path) -> ComparePlan:
    """Read the plan of a comparison from a TOML file.

    Raises:
        PlanError: If the file cannot be read, is not TOML, or a key or value does not fit.
    """
    return compare_plan(read_table(path))


def compare_plan(content: dict[str, Any]) -> ComparePlan:
    """Make the plan of a comparison from the content of its file; see `load_compare_plan`."""
    base = dict(content)
    listed = base.pop("schemes", None)
    if not isinstance(listed, list) or not listed:
        raise PlanError("key 'schemes' is missing: a comparison lists at least one [[schemes]] with its name")
    if len(listed) > MOST:
        raise PlanError(f"schemes: {len(listed):,} are listed; a comparison takes at most {MOST}")
    if "scheme" in base:
        raise PlanError("[scheme] is for a single audit; a comparison lists [[schemes]]")
    if "data" not in base:
        raise PlanError("a comparison trains its targets: it needs [data]")
    cells: list[Cell] = []
    for number, raw in enumerate(listed):
        try:
            entry = Entry.model_validate(raw)
        except ValidationError as error:
            raise table_error(error, Entry, "schemes", str(number)) from error
        cells += _cells(base, entry)
    names = Counter((cell.label, cell.varied, cell.value) for cell in cells)
    if twice := next((name for name, times in names.items() if times > 1), None):
        raise PlanError(f"schemes: {quoted(twice[0])} is listed twice with the same value; give one of them a `label`")
    return ComparePlan(str(base.get("title", "comparison")), tuple(cells), content)


def _cells(base: dict[str, Any], entry: Entry) -> list[Cell]:
    if (entry.vary is None) is not (not entry.values):
        raise PlanError(f"schemes: {quoted(entry.name)} needs both `vary` (a field) and `values` (a list), or neither")
    if entry.vary in entry.parameters:
        raise PlanError(
            f"schemes: {quoted(entry.name)} varies {quoted(entry.vary)} and fixes it too; leave one of them out"
        )
    label = entry.label or entry.name
    found = []
    for value in entry.values or (None,):
        varied = {} if value is None or entry.vary is None else {entry.vary: _number(value)}
        table = {name: value for name, value in base.items() if name not in WATCHING}
        table["scheme"] = {"name": entry.name, **entry.parameters, **varied}
        given = base.get("training", {})
        table["training"] = {**given, **entry.training} if isinstance(given, dict) else given
        said = label if value is None else f"{label}, {entry.vary} {value:g}"
        table["title"] = f"{base.get('title', 'comparison')}: {said}"
        try:
            plan = parse_table(table)
        except PlanError as error:
            raise PlanError(f"schemes, {printable(said, longest=80)}: {error}") from error
        found.append(Cell(label, entry.vary, value, plan, _watched(base)))
    return found


def _watched(base: dict[str, Any]) -> dict[str, Part]:
    try:
        return {name: part.model_validate(base[name]) for name, part in WATCHING.items() if name in base}
    except ValidationError as error:
        raise PlanError(problems(error)) from error


def _number(value: float) -> float | int:
    """Return a whole number as an int: a field may want one."""
    return int(value) if math.isfinite(value) and value == int(value) else value
