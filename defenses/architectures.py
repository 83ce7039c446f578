"""Networks by name, all free of cross-example layers, so that a per-example rule means what it says.

A factory takes the shape of one record and the number of classes; `package.module:factory` names the user's own, and
is imported only if the architecture says that this is allowed.
Normalisation is GroupNorm: BatchNorm mixes the records of a lot, and one record then moves every other's gradient.
"""

import importlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from defenses.errors import PlanError
from defenses.input_transform import InputTransform
from defenses.randomness import derive
from defenses.records import Shape


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        name: One of `NAMES`, or ``package.module:factory``.
        options: Keyword arguments of the factory.
        allow_code: Whether a factory of the user's own may be imported and run.
        front: Components and bound of the preprocessing that a released model carries (`defenses.input_transform`), or
            None.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    allow_code: bool = field(default=False, compare=False, repr=False)
    front: Mapping[str, Any] | None = field(default=None, repr=False)  # no recipe has one

    @property
    def key(self) -> str:
        """A text that is equal exactly for equal architectures."""
        front = [] if self.front is None else [dict(self.front)]
        return json.dumps([self.name, dict(self.options), *front], sort_keys=True)

    @property
    def module(self) -> str | None:
        """The module that a factory of the user's own lies in, None for a network of `NAMES`.

        Raises:
            PlanError: If it may not be imported.
        """
        if ":" not in self.name:
            return None
        find_factory(self.name, allow_code=self.allow_code)
        return self.name.partition(":")[0]

    def __hash__(self) -> int:
        return hash(self.key)

    def build(self, shape: Shape, classes: int, *, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Build the network with weights that depend on the seed alone.

        Args:
            shape: Shape of one record.
            classes: Number of classes C.
            seed: Model seed; global random state is left as it was.
            dtype: Type of the weights.

        Returns:
            A module from (n, *shape) to logits (n, C), on the CPU, in train mode.

        Raises:
            PlanError: If the name is unknown or names code that may not be run, or the factory does not take these
                options or this shape.
        """
        if self.front is not None:
            front = InputTransform(shape, **self.front)
            inner = replace(self, front=None).build(front.output_shape, classes, seed=seed, dtype=dtype)
            return nn.Sequential(front.to(dtype), inner)
        factory = find_factory(self.name, allow_code=self.allow_code)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "initialisation") % 2**63)
            try:
                module = factory(shape, classes, **self.options)
            except (TypeError, ValueError, RuntimeError) as error:
                raise PlanError(
                    f"architecture {self.name!r} with options {dict(self.options)} cannot be built for records of "
                    f"shape {shape}: {error}"
                ) from error
        if ":" in self.name:
            _check_interface(module, self.name, shape, classes)
        for part in module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False  # type: ignore[assignment]  # in-place activations have no place in a pure step
        return module.to(dtype)


def mlp(shape: Shape, classes: int, *, hidden: Sequence[int] = (128,), activation: str = "relu") -> nn.Module:
    """Fully connected network on flattened records.

    Args:
        shape: Shape of one record.
        classes: Number of classes.
        hidden: Width of each hidden layer.
        activation: "relu" or "tanh".
    """
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), _activation(activation)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def cnn(
    shape: Shape,
    classes: int,
    *,
    channels: Sequence[int] = (16, 32),
    kernels: Sequence[int] | None = None,
    hidden: int = 32,
    activation: str = "tanh",
) -> nn.Module:
    """Small convolutional network.

    At 24 pixels and above this is the network of Tramer and Boneh 2021 (8x8 and 4x4 kernels at stride 2, 26,010
    parameters on MNIST); smaller images get 3x3 kernels at stride 1.

    Args:
        shape: (channels, height, width).
        classes: Number of classes.
        channels: Output channels of each convolution.
        kernels: Kernel size of each convolution, or None for the default by image size.
        hidden: Width of the fully connected layer.
        activation: "relu" or "tanh".
    """
    _need_image(shape, "cnn")
    large = min(shape[1:]) >= 24
    sizes = list(kernels) if kernels is not None else ([8, 4] if large else [3, 3])[: len(channels)]
    if len(sizes) != len(channels):
        raise ValueError(f"{len(channels)} convolutions but {len(sizes)} kernels; give one kernel size each")
    layers: list[nn.Module] = []
    before = shape[0]
    for number, (after, size) in enumerate(zip(channels, sizes, strict=True)):
        padding = size // 4 if large and number == 0 else (0 if large else size // 2)
        stride = 2 if large else 1
        layers += [nn.Conv2d(before, after, size, stride=stride, padding=padding), _activation(activation)]
        layers.append(nn.MaxPool2d(2, stride=1 if large else 2))
        before = after
    features = nn.Sequential(*layers)
    with torch.no_grad():
        flat = features(torch.zeros(1, *shape)).numel()
    return nn.Sequential(
        features, nn.Flatten(), nn.Linear(flat, hidden), _activation(activation), nn.Linear(hidden, classes)
    )


def vgg(shape: Shape, classes: int, *, depth: int = 11, width: float = 1.0, hidden: int = 0) -> nn.Module:
    """VGG (Simonyan and Zisserman 2015) with GroupNorm, for images of 8 pixels and above.

    Poolings that would shrink the image below one pixel are left out, and the classifier is one linear layer (or one
    hidden layer) on the pooled features, as is usual at 32x32; torchvision's own head wants 224x224.

    Args:
        shape: (channels, height, width).
        classes: Number of classes.
        depth: 11, 13, 16 or 19.
        width: Multiplier of the number of channels, e.g. 0.25.
        hidden: Width of a hidden classifier layer, 0 for none.
    """
    from torchvision.models.vgg import cfgs

    _need_image(shape, "vgg")
    names = {11: "A", 13: "B", 16: "D", 19: "E"}
    if depth not in names:
        raise ValueError(f"depth is {depth}; VGG has {sorted(names)}")
    layers: list[nn.Module] = []
    before, size = shape[0], min(shape[1:])
    for part in cfgs[names[depth]]:
        if part == "M":
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            continue
        after = max(8, int(int(part) * width))
        layers += [nn.Conv2d(before, after, 3, padding=1), _group_norm(after), nn.ReLU()]
        before = after
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden:
        head += [nn.Linear(before, hidden), nn.ReLU()]
        before = hidden
    return nn.Sequential(*layers, *head, nn.Linear(before, classes))


def resnet(shape: Shape, classes: int, *, depth: int = 18) -> nn.Module:
    """Torchvision's ResNet (He et al. 2016) with GroupNorm; images up to 64 pixels get a 3x3 stem without pooling.

    Args:
        shape: (channels, height, width).
        classes: Number of classes.
        depth: 18 or 34.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    _need_image(shape, "resnet")
    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
    if depth not in blocks:
        raise ValueError(f"depth is {depth}; choose one of {sorted(blocks)}")
    module: nn.Module = ResNet(BasicBlock, blocks[depth], num_classes=classes, norm_layer=_group_norm)
    small = min(shape[1:]) <= 64
    module.conv1 = (
        nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        if small
        else nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    )
    if small:
        module.maxpool = nn.Identity()
    return module


FACTORIES: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "cnn": cnn, "vgg": vgg, "resnet": resnet}
NAMES = tuple(FACTORIES)


def find_factory(name: str, *, allow_code: bool = False) -> Callable[..., nn.Module]:
    """Return the factory of a network.

    Args:
        name: One of `NAMES`, or ``package.module:factory``.
        allow_code: Whether the latter may be imported, which runs it. Never True for a name that was read from a file
            of weights: a file must not choose what is run.

    Raises:
        PlanError: If there is none of that name, or it may not be imported.
    """
    if ":" in name:
        if not allow_code:
            raise PlanError(f"architecture {name!r} would run code of that package; give --allow-code if you trust it")
        module, _, attribute = name.partition(":")
        try:
            found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PlanError(
                f"architecture {name!r} cannot be imported ({error}); the form is package.module:factory, "
                "and the package must be on the Python path"
            ) from error
        return found
    if name not in FACTORIES:
        raise PlanError(f"architecture {name!r} is unknown; choose one of {', '.join(NAMES)} or package.module:factory")
    return FACTORIES[name]


def with_input_transform(architecture: Architecture, front: InputTransform) -> Architecture:
    """Return the architecture of a network behind a front."""
    return replace(architecture, front=front.options)


def untrained(model: nn.Module, architecture: Architecture, shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a network with the weights of a seed, behind the front of a trained model if that has one.

    Args:
        model: The trained model.
        architecture: Of its network.
        shape: Shape of one record, as it is asked about.
        classes: Number of classes.
        seed: Of the weights.
    """
    front = model[0] if isinstance(model, nn.Sequential) and len(model) else None
    if not isinstance(front, InputTransform):
        return architecture.build(shape, classes, seed=seed)
    return nn.Sequential(front, architecture.build(front.output_shape, classes, seed=seed))


def _check_interface(module: object, name: str, shape: Shape, classes: int) -> None:
    """Refuse a network from elsewhere that does not take these records, or answers with something else than logits."""
    if not isinstance(module, nn.Module):
        raise PlanError(f"architecture {name!r} returned {type(module).__name__}; a factory returns a torch.nn.Module")
    try:
        with torch.no_grad():
            answer = module.eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise PlanError(f"architecture {name!r} does not take records of shape {shape}: {error}") from error
    finally:
        module.train()
    got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if got != (2, classes):
        raise PlanError(
            f"architecture {name!r} answers two records with {got}; it must be logits of shape {(2, classes)}"
        )


def _activation(name: str) -> nn.Module:
    if name not in ("relu", "tanh"):
        raise ValueError(f"activation is {name!r}; choose 'relu' or 'tanh'")
    return nn.ReLU() if name == "relu" else nn.Tanh()


def _group_norm(channels: int) -> nn.Module:
    """Return GroupNorm with about 16 channels a group: with few, a 1x1 feature map leaves nothing to normalise over."""
    return nn.GroupNorm(math.gcd(max(1, channels // 16), channels), channels)


def _need_image(shape: Shape, name: str) -> None:
    if len(shape) != 3:
        raise ValueError(f"{name} wants images (channels, height, width); use mlp for flat records")
