"""The audit plan: what to audit, how, and against which limits; read from TOML, checked before anything is trained."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from auditor.plan.sections import (
    DEFAULT_LIMIT,
    Checkpoint,
    Claim,
    Control,
    Data,
    Generator,
    Gradients,
    Limit,
    Model,
    Name,
    Named,
    Part,
    PriorAware,
    Released,
    Scores,
    Training,
    WhiteBox,
)
from defenses.errors import PlanError
from reports.parsing import and_more, parse_toml, read_toml
from reports.untrusted import printable, quoted

_FIRST = 5  # problems that a message names


class Plan(Part):
    """One audit.

    Either `data` (the audit trains the target itself), `checkpoint` (somebody else did), `scores` (only what the model
    said is at hand) or `released` (records that stand for the real ones). `seed` makes a run repeatable for audit use;
    without it the target's coins and noise come from the operating system's entropy and stay secret.
    """

    title: str
    seed: int | None = Field(default=None, ge=0)
    data: Data | None = None
    checkpoint: Checkpoint | None = None
    scores: Scores | None = None
    released: Released | None = None
    gradients: Gradients | None = None
    generator: Generator | None = None
    model: Model | None = None
    training: Training | None = None
    scheme: Named | None = None
    claim: Claim | None = None
    shadows: int = Field(default=16, ge=1)
    attacks: tuple[Named, ...] = Field(default=(), max_length=200)
    limits: tuple[Limit, ...] = Field(default=(DEFAULT_LIMIT,), max_length=1_000)
    slices: tuple[Name, ...] = Field(default=("class", "correct"), max_length=1_000)
    control: Control = Control()
    white_box: WhiteBox | None = None
    prior_aware: PriorAware | None = None
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    delta: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if sum(part is not None for part in (self.data, self.checkpoint, self.scores, self.released)) != 1:
            raise ValueError("give exactly one of [data] (train a target here), [checkpoint], [scores] and [released]")
        bare = self.scores is not None or self.released is not None
        if not bare and self.model is None:
            raise ValueError("key 'model' is missing: say what network it is")
        extra = [name for name in ("model", "training", "scheme", "gradients", "generator", "seed") if self._has(name)]
        if bare and extra:
            what = "scores" if self.scores is not None else "released"
            raise ValueError(f"[{what}] are all there is: leave out {', '.join(extra)}")
        if self.generator is not None and self.data is None:
            raise ValueError("[generator] is trained on the records that a target is trained on here: it needs [data]")
        if self.data is not None and self.training is None:
            raise ValueError("[data] without [training]: say how the target is to be trained")
        for name in ("white_box", "prior_aware"):
            unprotected = self.data is None or self.scheme is None or self.scheme.name == "none"
            if getattr(self, name) is not None and unprotected:
                raise ValueError(
                    f"[{name}] watches steps of a training under a scheme: it needs [data] and a [scheme] with noise"
                )
        if self.claim is not None and self.data is not None:
            raise ValueError("[claim] is for a checkpoint; a target that is trained here claims what its scheme says")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        """Refuse what would be read and then have no effect."""
        if self.checkpoint is not None and self.seed is not None:
            raise ValueError("seed is for a target that is trained here; nothing is drawn from it for a checkpoint")
        if self.checkpoint is not None and self.scheme is not None and self.training is None:
            raise ValueError("[scheme] without [training]: give the whole recipe, or put what is promised into [claim]")
        if self.checkpoint is not None and self.checkpoint.canaries and not self.checkpoint.data and self.training:
            raise ValueError(
                "[training] for canaries needs data under [checkpoint]: shadow models train on the planted data too; "
                "name it, or leave [training] out and run only attacks that need no shadow models"
            )
        adaptive = self.training is not None and self.training.optimizer != "sgd"
        if adaptive and ("momentum" in (self.training or self).model_fields_set or self.control.momentum is not None):
            raise ValueError("momentum is for optimizer 'sgd'; Adam and Nadam have their own decay rates")
        overrides = self.control.model_fields_set - {"enabled"}
        if overrides and (self.scheme is None or self.scheme.name == "none"):
            raise ValueError(f"[control] sets {sorted(overrides)}, but an unprotected target is its own control")
        return self

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def judged_delta(self) -> float:
        """Delta at which epsilon is shown: the plan's, else that of the claim or the scheme, else 1e-5."""
        if self.delta is not None:
            return self.delta
        if self.claim is not None:
            return self.claim.delta
        given = None if self.scheme is None else self.scheme.parameters.get("delta")
        return given if isinstance(given, float) else 1e-5

    @property
    def subject_digest(self) -> str:
        """SHA-256 (hex) of what is audited: data or checkpoint, network, recipe and scheme; no limits, title or seed.

        Judging the same subject by other limits or attacks, or something beside it, must not draw it anew.
        """
        subject = {"data", "checkpoint", "scores", "model", "training", "scheme", "delta"}
        if self.released is not None:
            subject.add("released")
        about = self.model_dump(mode="json", include=subject)
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @property
    def recipe_digest(self) -> str:
        """SHA-256 (hex) of network, recipe and scheme, without the data."""
        about = self.model_dump(mode="json", include={"model", "training", "scheme", "delta"})
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content; comments and order of keys do not matter."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load_plan(path: Path) -> Plan:
    """Read a plan from a TOML file.

    Args:
        path: The file.

    Returns:
        The plan; relative paths in it are left as they are (they are relative to the file's folder).

    Raises:
        PlanError: If the file cannot be read, is not TOML, or a key or value does not fit; names the key, the value and
            the nearest known key.
    """
    return parse_table(read_table(path))


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a plan's file, of whatever kind of plan; raises `PlanError` if it cannot be read."""
    return read_toml(path, error=PlanError)


def parse_plan(text: str | bytes) -> Plan:
    """Read a plan from TOML text; see `load_plan`."""
    return parse_table(parse_toml(text, what="the plan", error=PlanError))


def parse_table(table: dict[str, Any]) -> Plan:
    """Read a plan from the content of its file; see `load_plan`."""
    for key, command in (("tune", "tune"), ("schemes", "compare")):
        if key in table:
            raise PlanError(f"key {key!r} makes this a plan for `auditor {command}`; it is no plan of a single audit")
    try:
        return Plan.model_validate(table)
    except ValidationError as error:
        raise table_error(error, Plan) from error


def table_error(error: ValidationError, root: type[BaseModel], *within: str) -> PlanError:
    """Return what is wrong with a table of a plan, key by key, in the words of `load_plan`.

    Args:
        error: What pydantic found.
        root: What the table was read as.
        *within: Keys that lead to the table in its file.
    """
    listed = error.errors(include_url=False, include_context=False)
    return PlanError(and_more([_sentence(dict(one), root, list(within)) for one in listed[:_FIRST]], len(listed)))


def nearest(name: str, known: list[str]) -> str:
    """Return ", did you mean ...?" with the nearest known name, or the list of all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def _sentence(problem: dict[str, Any], root: type[BaseModel], within: list[str]) -> str:
    place = [str(part) for part in problem["loc"]]
    where = printable(".".join([*within, *place]) or "the plan", longest=120)
    if problem["type"] == "extra_forbidden":
        return f"key {where!r} is unknown, {nearest(place[-1], _known_keys(root, place[:-1]))}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = printable(str(problem["msg"]).removeprefix("Value error, "))
    given = problem.get("input")
    return f"{where}: {message}" + (f", not {quoted(given)}" if isinstance(given, str | int | float) else "")


def _known_keys(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        found = [
            kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]  # fmt: skip
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)
