"""The audit plan: what to audit, how, and against which limits; read from TOML, checked before anything is trained."""

import abc
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from auditor.plan.sections import (
    DEFAULT_LIMIT,
    Claim,
    Control,
    Generator,
    Gradients,
    Limit,
    Model,
    Name,
    Named,
    Part,
    PriorAware,
    Training,
    WhiteBox,
)
from auditor.plan.target_kinds import discovered, union_of
from auditor.plan.terms import Terms
from defenses.errors import PlanError
from reports.parsing import and_more, parse_toml, read_toml
from reports.suggestions import nearest
from reports.untrusted import printable, quoted

if TYPE_CHECKING:
    from auditor.context import RunContext
    from auditor.subject import AuditSubject

_FIRST = 5  # problems that a message names


_WRITTEN = ("data", "checkpoint", "scores", "released")
"""Tables that every plan's record and digest have, empty or not: another kind of target must not change digests."""

WATCHES_STEPS = "[{}] watches steps of a training under a scheme: it needs [data] and a [scheme] with noise"

_NEEDED: Mapping[str, str] = {
    "model": "[model] has no effect on this target: leave it out",
    "training": "[training] has no effect on this target: leave it out",
    "scheme": "[scheme] has no effect on this target: leave it out",
    "gradients": "[gradients] are made of a network and its records, which this target does not have: leave it out",
    "generator": "[generator] is trained on the records that a target is trained on here: it needs [data]",
    "seed": "seed is for a target that is trained here; nothing is drawn from it for a {kind}",
    "white_box": WATCHES_STEPS.format("white_box"),
    "prior_aware": WATCHES_STEPS.format("prior_aware"),
    "claim": "[claim] is for a checkpoint; a target that is trained here claims what its scheme says",
}
"""Parts of a plan that not every target can use, and why one that cannot is refused."""


class TargetPlan(Part, abc.ABC):
    """Base of every kind of target: one table of the plan, and how what is attacked is made of it.

    A kind of target is one file in `auditor.targets` with one subclass. The subclass is found there; its fields are the
    keys of its table. A key that holds a path is called `path` or `source`: reports name its file without the folder.

    Attributes:
        name: Key of the table in plans.
        uses: Parts of the plan that this kind of target uses, of `model`, `training`, `scheme`, `gradients`,
            `generator`, `seed`, `white_box`, `prior_aware` and `claim`; a plan that gives any other is refused.
    """

    name: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset({"claim"})

    def check(self, plan: "Plan") -> None:
        """Refuse a plan whose other parts do not go with this target.

        Raises:
            ValueError: Says what does not go together, and the remedy.
        """

    @abc.abstractmethod
    def build(self, plan: "Plan", context: "RunContext") -> "AuditSubject":
        """Make or read what is attacked, with the truth about it.

        Args:
            plan: The whole plan; nothing after this step sees it.
            context: Where and with what.

        Returns:
            The subject, ready to be attacked; its `description` holds what reports say about this kind of target.

        Raises:
            AuditError: If plan, data or files do not fit; before anything is trained, if there is anything to train.
        """


def target_kinds() -> dict[str, type[TargetPlan]]:
    """Return every kind of target by the key of its table in plans."""
    return discovered(TargetPlan)


def _of_its_kind(given: Any) -> Any:
    return given if isinstance(given, TargetPlan) else union_of(target_kinds()).validate_python(given)


class Plan(Part):
    """One audit.

    `target` is the one table that says what is audited: `data` (the audit trains the target itself), `checkpoint`
    (somebody else did), `scores` (only what the model said is at hand), `released` (records that stand for the real
    ones), or any other kind of `auditor.targets`. `seed` makes a run repeatable for audit use; without it the target's
    coins and noise come from the operating system's entropy and stay secret.
    """

    title: str
    seed: int | None = Field(default=None, ge=0)
    target: Annotated[SerializeAsAny[TargetPlan], BeforeValidator(_of_its_kind)] = Field(
        default_factory=lambda: cast("Any", None)
    )
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

    @model_validator(mode="before")
    @classmethod
    def _find_target(cls, given: Any) -> Any:
        """Read the table of the target as its kind says."""
        if not isinstance(given, Mapping) or isinstance(given.get("target"), TargetPlan):
            return given
        if "target" in given:
            raise ValueError(f"key 'target' is unknown: say what is audited by {_tables()}")
        kinds = target_kinds()
        tables = {name: given[name] for name in kinds if given.get(name) is not None}
        if len(tables) > 1:
            raise ValueError(f"give exactly one of {_tables()}")
        rest = {name: value for name, value in given.items() if name not in kinds}
        return rest if not tables else rest | {"target": next(iter(tables.items()))}

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        target: TargetPlan | None = self.target
        if target is None:
            raise ValueError(f"give exactly one of {_tables()}")
        extra = [name for name in _NEEDED if getattr(self, name) is not None and name not in target.uses]
        whole = [name for name in extra if name not in ("white_box", "prior_aware", "claim")]
        if whole and target.uses <= {"claim"}:
            raise ValueError(f"[{target.name}] needs no other part of the plan: leave out {', '.join(whole)}")
        if "model" in target.uses and self.model is None:
            raise ValueError("key 'model' is missing: say what network it is")
        if extra:
            raise ValueError(_NEEDED[extra[0]].format(kind=target.name))
        target.check(self)
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        """Refuse what would be read and then have no effect."""
        adaptive = self.training is not None and self.training.optimizer != "sgd"
        if adaptive and ("momentum" in (self.training or self).model_fields_set or self.control.momentum is not None):
            raise ValueError("momentum is for optimizer 'sgd'; Adam and Nadam have their own decay rates")
        overrides = self.control.model_fields_set - {"enabled"}
        if overrides and self.unprotected:
            raise ValueError(f"[control] sets {sorted(overrides)}, but an unprotected target is its own control")
        return self

    @model_serializer(mode="wrap")
    def _with_its_table(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the target as the table that it was read from."""
        rest: dict[str, Any] = serialize(self)
        table = rest.pop("target")
        head = {name: rest.pop(name) for name in ("title", "seed")}
        return head | dict.fromkeys(_WRITTEN) | {self.target.name: table} | rest

    @property
    def unprotected(self) -> bool:
        """Whether the plan names no scheme."""
        return self.scheme is None or self.scheme.name == "none"

    @property
    def terms(self) -> Terms:
        """What is asked about the target, whatever it is."""
        return Terms(
            title=self.title,
            document=self.model_dump(mode="json"),
            digest=self.digest,
            subject_digest=self.subject_digest,
            recipe_digest=self.recipe_digest,
            seed=self.seed,
            limits=self.limits,
            slices=self.slices,
            control=self.control,
            white_box=self.white_box,
            prior_aware=self.prior_aware,
            confidence=self.confidence,
            judged_delta=self.judged_delta,
        )

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
        subject = {"data", "checkpoint", "scores", self.target.name, "model", "training", "scheme", "delta"}
        return self._digest_of(subject)

    @property
    def recipe_digest(self) -> str:
        """SHA-256 (hex) of network, recipe and scheme, without the data."""
        return self._digest_of({"model", "training", "scheme", "delta"})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content; comments and order of keys do not matter."""
        return self._digest_of(None)

    def _digest_of(self, keys: set[str] | None) -> str:
        about = {name: value for name, value in self.model_dump(mode="json").items() if keys is None or name in keys}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


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


def _sentence(problem: dict[str, Any], root: type[BaseModel], within: list[str]) -> str:
    place = [str(part) for part in problem["loc"]]
    if issubclass(root, Plan) and place[:1] == ["target"]:
        place = place[1:]  # what follows is the name of its table
    where = printable(".".join([*within, *place]) or "the plan", longest=120)
    if problem["type"] == "extra_forbidden":
        return f"key {where!r} is unknown{nearest(place[-1], _known_keys(root, place[:-1]))}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = printable(str(problem["msg"]).removeprefix("Value error, "))
    given = problem.get("input")
    return f"{where}: {message}" + (f", not {quoted(given)}" if isinstance(given, str | int | float) else "")


def _tables() -> str:
    """Return the tables that say what is audited, as messages list them."""
    known = {name: f"[{name}]" for name in target_kinds()} | {"data": "[data] (train a target here)"}
    *first, last = [known.pop(name) for name in _WRITTEN] + list(known.values())
    return f"{', '.join(first)} and {last}"


def _known_keys(model: type[BaseModel], place: list[str]) -> list[str]:
    if issubclass(model, Plan):
        kinds = target_kinds()
        if not place:
            return [*(name for name in model.model_fields if name != "target"), *kinds]
        if place[0] in kinds:
            return _known_keys(kinds[place[0]], place[1:])
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
