"""The audit plan: what to audit, how, and against which limits; read from TOML, checked before anything is trained."""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from defenses.errors import PlanError


class Part(BaseModel):
    """Base of every part of a plan: frozen, and a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """Where records come from: a name that `auditor list` shows, or a path (relative to the plan).

    The other keys are those of `auditor.datasets.load`.
    """

    source: str
    split: Literal["train", "test", "all"] = "train"
    label: str | None = None
    ranges: dict[str, tuple[float, float]] | None = None
    categories: dict[str, tuple[str, ...]] | None = None
    exclude: tuple[str, ...] = ()
    classes: int | tuple[str, ...] | None = None
    value_range: tuple[float, float] | None = None
    rescale: bool = True


class Data(Source):
    """The records of an audit that trains its own target.

    `pool` records are candidates, each trained on by a fair coin; `population` records stay outside all training.
    """

    pool: int = Field(ge=20)
    population: int = Field(default=0, ge=0)


class Checkpoint(Part):
    """A trained model's file, the records that it was trained on, and records that it was not.

    `inclusion` is "fixed" unless the members were drawn from members and nonmembers together by independent fair coins,
    which only the owner of the training can know; then an epsilon can be shown. Instead of both sets, `canaries` names
    the sealed file of `auditor plant`, `data` what was planted (shadow models need it), and `commitment` what was
    published of the coins.
    """

    path: str
    members: Source | None = None
    nonmembers: Source | None = None
    canaries: str | None = None
    data: str | None = None
    commitment: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    population: Source | None = None
    classes: int | None = Field(default=None, ge=2)
    inclusion: Literal["fixed", "independent_coins"] = "fixed"

    @model_validator(mode="before")
    @classmethod
    def _canaries_toss_coins(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("canaries") is not None:
            return {"inclusion": "independent_coins"} | given
        return given

    @model_validator(mode="after")
    def _one_truth(self) -> Self:
        if self.canaries is None:
            if self.members is None or self.nonmembers is None:
                raise ValueError("give members and nonmembers, or canaries: the sealed file of auditor plant")
            if self.data is not None or self.commitment is not None:
                raise ValueError("data and commitment belong to canaries, and no canaries are given")
            return self
        said = [name for name in ("members", "nonmembers", "classes") if getattr(self, name) is not None]
        if self.inclusion == "fixed":
            said.append("inclusion")
        if said:
            raise ValueError(f"the sealed file of canaries says this itself: leave out {', '.join(said)}")
        return self


class Scores(Part):
    """What a model said about records and who of them was in its training, recorded in a .npz or .csv file."""

    path: str
    inclusion: Literal["fixed", "independent_coins"] = "fixed"


class Model(Part):
    """The network: a known name, or `package.module:factory` (needs --allow-code)."""

    architecture: str
    options: dict[str, Any] = {}


class Training(Part):
    """The training recipe."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["float32", "float64"] = "float32"
    flip: bool = False
    shift: int = Field(default=0, ge=0)


class Control(Part):
    """The positive control: the same job without protection, which shows that the attacks can see a leak at all.

    Fields left out are those of `training`; an unprotected run often wants a smaller learning rate than a private one.
    """

    enabled: bool = True
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)


class WhiteBox(Part):
    """An audit of clipping and noise from inside: gradient canaries, in or out of every step of one more run."""

    canaries: int = Field(default=512, ge=1)
    steps: int = Field(default=100, ge=1)
    directions: Literal["dirac", "orthogonal"] = "dirac"


class Named(BaseModel):
    """A scheme or an attack by name; its other keys are that scheme's or attack's own fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.__pydantic_extra__ or {})


class Claim(Part):
    """What the owner of a checkpoint claims about its training."""

    epsilon: float = Field(ge=0)
    delta: float = Field(ge=0, lt=1)
    neighboring: Literal["add_remove", "replace_one"] = "add_remove"
    unit: Literal["record", "user"] = "record"


class Limit(Part):
    """A threshold on what an attack may find; without `attack` it holds for every attack."""

    measure: str
    maximum: float
    attack: str | None = None


DEFAULT_LIMIT = Limit(measure="tpr_at_fpr_0.01", maximum=0.03)


class Plan(Part):
    """One audit.

    Either `data` (the audit trains the target itself), `checkpoint` (somebody else did) or `scores` (only what the
    model said is at hand). `seed` makes a run repeatable for audit use; without it the target's coins and noise come
    from the operating system's entropy and stay secret.
    """

    title: str
    seed: int | None = Field(default=None, ge=0)
    data: Data | None = None
    checkpoint: Checkpoint | None = None
    scores: Scores | None = None
    model: Model | None = None
    training: Training | None = None
    scheme: Named | None = None
    claim: Claim | None = None
    shadows: int = Field(default=16, ge=1)
    attacks: tuple[Named, ...] = ()
    limits: tuple[Limit, ...] = (DEFAULT_LIMIT,)
    slices: tuple[str, ...] = ("class", "correct")
    control: Control = Control()
    white_box: WhiteBox | None = None
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    delta: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if sum(part is not None for part in (self.data, self.checkpoint, self.scores)) != 1:
            raise ValueError("give exactly one of [data] (train a target here), [checkpoint] and [scores]")
        if self.scores is None and self.model is None:
            raise ValueError("key 'model' is missing: say what network it is")
        if self.scores is not None and (self.model or self.training or self.scheme or self.seed is not None):
            raise ValueError("[scores] are all there is: leave out model, training, scheme and seed")
        if self.data is not None and self.training is None:
            raise ValueError("[data] without [training]: say how the target is to be trained")
        if self.white_box is not None and (self.data is None or self.scheme is None or self.scheme.name == "none"):
            raise ValueError(
                "[white_box] watches the steps of a training under a scheme: it needs [data] and a [scheme] with noise"
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
        adam = self.training is not None and self.training.optimizer == "adam"
        if adam and ("momentum" in (self.training or self).model_fields_set or self.control.momentum is not None):
            raise ValueError("momentum is for optimizer 'sgd'; Adam has its own decay rates")
        overrides = self.control.model_fields_set - {"enabled"}
        if overrides and (self.scheme is None or self.scheme.name == "none"):
            raise ValueError(f"[control] sets {sorted(overrides)}, but an unprotected target is its own control")
        return self

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

        Judging the same subject by other limits or attacks must not draw it anew.
        """
        about = self.model_dump(
            mode="json", include={"data", "checkpoint", "scores", "model", "training", "scheme", "delta"}
        )
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
    try:
        text = path.read_text()
    except OSError as error:
        raise PlanError(f"plan {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"plan {path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    return parse_plan(text)


def parse_plan(text: str) -> Plan:
    """Read a plan from TOML text; see `load_plan`."""
    try:
        return Plan.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"the plan is not TOML: {error}") from error
    except ValidationError as error:
        raise PlanError("; ".join(_sentence(dict(problem)) for problem in error.errors())) from error


def nearest(name: str, known: list[str]) -> str:
    """Return ", did you mean ...?" with the nearest known name, or the list of all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def _sentence(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    where = ".".join(place) or "the plan"
    if problem["type"] == "extra_forbidden":
        return f"key {where!r} is unknown, {nearest(place[-1], _known_keys(place[:-1]))}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    return f"{where}: {message}" + (f", not {given!r}" if isinstance(given, str | int | float) else "")


def _known_keys(place: list[str]) -> list[str]:
    model: type[BaseModel] = Plan
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
