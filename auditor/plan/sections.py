"""The parts of an audit plan, as TOML has them: frozen, and a key that is not known is refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(max_length=200)]
"""What messages quote: of a measure, an attack, a scheme, a network, a column."""


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


class Gradients(Part):
    """What participants of the training would have sent: each the mean gradient over its own records.

    The scheme of the plan protects it; `clip`, `noise` (standard deviation) and `kept` (share of the numbers, the
    largest of them) come after that. With `local_steps` above 1 it is the change of the weights over `learning_rate`.
    """

    victims: int = Field(default=64, ge=2)
    batch_size: int = Field(default=1, ge=1)
    weights: Literal["start", "end"] = "start"
    local_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    clip: float | None = Field(default=None, gt=0)
    noise: float = Field(default=0.0, ge=0)
    noise_kind: Literal["gaussian", "laplace"] = "gaussian"
    kept: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "float64"] = "float32"


class Model(Part):
    """The network: a known name, or `package.module:factory` (needs --allow-code)."""

    architecture: Name
    options: dict[str, Any] = {}


class Training(Part):
    """The training recipe."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    optimizer: Literal["sgd", "adam", "nadam"] = "sgd"
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


class Generator(Part):
    """A DCGAN that is trained on the same records under the same scheme, and whose samples are released.

    `steps` and `batch_size` are those of its discriminator, the only part that meets records.
    """

    samples: int = Field(default=1000, ge=10)
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=50, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    discriminator_rate: float | None = Field(default=None, gt=0)
    width: int = Field(default=32, ge=1)
    latent: int = Field(default=32, ge=1)
    conditional: bool = True


class PriorAware(Part):
    """Which of so many records was added, by who knows all others and sees every step; one model per trial."""

    candidates: int = Field(default=10, ge=2)
    trials: int = Field(default=100, ge=1)


class Named(BaseModel):
    """A scheme or an attack by name; its other keys are that scheme's or attack's own fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name

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

    measure: Name
    maximum: float
    attack: Name | None = None


DEFAULT_LIMIT = Limit(measure="tpr_at_fpr_0.01", maximum=0.03)
