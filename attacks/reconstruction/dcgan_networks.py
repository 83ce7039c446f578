"""The networks of DCGAN for square images of 8, 28, 32 and 64 pixels, and a trained generator."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.similarity import mse
from defenses.errors import NotApplicableError
from defenses.records import FloatArray, Image, IntArray, Records
from defenses.sampling import Lots

SIZES = (8, 28, 32, 64)
LEAST_DIVERSITY = 0.3  # of samples, as a share of the records' own
LEAST_LOSS = 1e-3  # of the discriminator on fakes in the last tenth of the steps; log 2 if it cannot tell

_COMPARED = 300  # samples and records whose diversity is measured
_AT_ONCE = 500  # images made at once

_STARTS = {8: 4, 28: 7, 32: 4, 64: 4}  # pixels of the first feature map; every layer doubles them
_SPREAD = 0.02  # of the initial weights, as in the paper
_IMPOSSIBLE = -1e9  # a logit
_SLOPE = 0.2  # of the discriminator's leaky rectifiers


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise NotApplicableError unless records are square images of one of `SIZES`, with 1 or 3 channels."""
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2] or shape[1] not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise NotApplicableError(
            f"records have shape {shape}; a DCGAN makes square images of {sizes} pixels with 1 or 3 channels: resize "
            "them"
        )


class Generator(nn.Module):
    """From latent vectors to images in [-1, 1]: a projection, then transposed convolutions that double the size.

    Feature maps get BatchNorm, which mixes the fakes of a batch; no record passes through here.

    Args:
        shape: (channels, height, width).
        latent: Length of a latent vector.
        width: Feature maps before the last layer; every layer before it has twice as many.
        classes: Number of classes that images are conditioned on, 0 for none.

    Raises:
        NotApplicableError: If the shape is not one of those.
    """

    def __init__(self, shape: tuple[int, ...], *, latent: int, width: int, classes: int = 0) -> None:
        super().__init__()
        check_shape(shape)
        self.latent, self.classes = latent, classes
        self.start, layers = _STARTS[shape[1]], _doublings(shape[1])
        widths = [width * 2**power for power in reversed(range(layers))]
        self.project = nn.Linear(latent + classes, widths[0] * self.start**2, bias=False)
        blocks: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            blocks += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.rise = nn.Sequential(*blocks, nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (B, *shape) in [-1, 1] of latent vectors (B, latent), of classes y (B,) if conditioned."""
        if self.classes:
            assert y is not None
            z = torch.cat([z, one_hot(y, self.classes).to(z)], dim=1)
        features: Tensor = self.project(z)
        images: Tensor = self.rise(features.reshape(len(z), -1, self.start, self.start))
        return images


class Discriminator(nn.Module):
    """From images in [-1, 1] to logits of "real": convolutions that halve the size, and one output per class.

    The paper's BatchNorm would mix the records of a lot, so that none has a gradient of its own; GroupNorm does not.

    Args:
        shape: (channels, height, width).
        width: Feature maps of the first layer; every layer after it has twice as many.
        classes: Number of classes that images are conditioned on, 0 for none.
        normalised: Whether to normalise feature maps, the first ones excepted.

    Raises:
        NotApplicableError: If the shape is not one of those.
    """

    def __init__(self, shape: tuple[int, ...], *, width: int, classes: int = 0, normalised: bool = True) -> None:
        super().__init__()
        check_shape(shape)
        self.classes, layers = classes, _doublings(shape[1])
        widths = [shape[0], *(width * 2**power for power in range(layers))]
        blocks: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            plain = number == 0 or not normalised
            blocks.append(nn.Conv2d(before, after, 4, 2, 1, bias=plain))
            blocks += [] if plain else [nn.GroupNorm(math.gcd(max(1, after // 16), after), after)]
            blocks.append(nn.LeakyReLU(_SLOPE))
        self.fall = nn.Sequential(*blocks, nn.Flatten())
        self.judge = nn.Linear(widths[-1] * _STARTS[shape[1]] ** 2, max(1, classes))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logit (B,) that each image (B, *shape) is real, and of class y (B,) if conditioned."""
        logits: Tensor = self.judge(self.fall(x))
        if not self.classes:
            return logits[:, 0]
        assert y is not None
        return (logits * one_hot(y, self.classes)).sum(dim=1)


class Judged(nn.Module):
    """A discriminator as a classifier with a class "fake", so that its loss on real images is a cross-entropy.

    Per-example gradients are of cross-entropies. With the logit d of "real" for an image's own class, 0 for "fake" and
    nothing for every other class, that of its own class is log(1 + exp(-d)), the discriminator's loss.

    Args:
        discriminator: Judges the images.
        classes: Number of classes C of records, whether or not images are conditioned on them.
    """

    def __init__(self, discriminator: Discriminator, classes: int) -> None:
        super().__init__()
        self.discriminator, self.classes = discriminator, classes

    def forward(self, labelled: Tensor) -> Tensor:
        """Return logits (B, C + 1) of images (B, channels + 1, height, width) whose last channel holds the class."""
        y = labelled[:, -1, 0, 0].long().clamp(0, self.classes - 1)
        real = self.discriminator(labelled[:, :-1], y)[:, None]
        own = torch.where(one_hot(y, self.classes), real, _IMPOSSIBLE)
        return torch.cat([own, torch.zeros_like(real)], dim=1)


@dataclass(frozen=True)
class Gan:
    """A trained generator.

    Attributes:
        generator: Averaged over training, in evaluation mode.
        kind: Public range of the pixels.
        lots: What an accountant needs: sampling probability and steps of the discriminator.
        history: (steps, 2) float32 losses of the discriminator on fakes, and of the generator.
        collapsed: Why it is judged collapsed, or None. This looks at the records, and no guarantee covers it.
        state: Final state of the gradient rule, by name; empty without one.
    """

    generator: Generator
    kind: Image
    lots: Lots
    history: FloatArray
    collapsed: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    def sample(self, count: int, rng: np.random.Generator, *, y: IntArray | None = None) -> FloatArray:
        """Make records (count, *shape) within the public range.

        Args:
            count: At least 1.
            rng: Draws latent vectors, and classes where they are not given.
            y: (count,) their classes; by default any, evenly. Without effect where images are not made by class.

        Raises:
            ValueError: If count is below 1, or there is not one class each.
        """
        if count < 1 or (y is not None and len(y) != count):
            raise ValueError(
                f"count is {count} and y {None if y is None else len(y)} classes; give 1 or more, one each"
            )
        place = next(self.generator.parameters()).device
        z = torch.from_numpy(rng.standard_normal((count, self.generator.latent), dtype=np.float32))
        labels = torch.from_numpy(rng.integers(max(1, self.generator.classes), size=count) if y is None else y)
        parts = zip(torch.split(z.to(place), _AT_ONCE), torch.split(labels.to(place), _AT_ONCE), strict=True)
        with torch.no_grad():
            made = torch.cat([self.generator(*part) for part in parts]).cpu().numpy()
        low, high = self.kind.low, self.kind.high
        return np.ascontiguousarray((low + (high - low) / 2 * (made + 1)).clip(low, high), dtype=np.float32)


def collapse(gan: Gan, records: Records, rng: np.random.Generator) -> str | None:
    """Say why a generator is judged collapsed, or return None."""
    last = gan.history[-max(1, len(gan.history) // 10) :, 0].mean()
    if not np.isfinite(gan.history).all():
        return "a loss is not finite: training diverged; use smaller learning rates"
    if last < LEAST_LOSS:
        return (
            f"the discriminator's loss on fakes is {last:.1g} at the end: it tells them all, and the generator learns "
            "nothing; use a smaller discriminator_rate"
        )
    there = _spread(records.x[rng.permutation(len(records))[:_COMPARED]])
    made = _spread(gan.sample(_COMPARED, rng))
    if made >= LEAST_DIVERSITY * there:
        return None
    return (
        f"samples differ by {made:.2g} (median distance of pairs), records by {there:.2g}: they are variants of one; "
        "train for more steps, or with another learning rate"
    )


def _spread(x: FloatArray) -> float:
    """Return the root mean squared difference of the median pair, 0 if there is none."""
    pairs = mse(x, x)[np.triu_indices(len(x), 1)]
    return float(np.sqrt(np.median(pairs))) if len(pairs) else 0.0


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights as the paper does: normal of deviation 0.02, around 1 for the scales of norms; no biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, _SPREAD, generator=generator)
        elif isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(part.weight, 1.0, _SPREAD, generator=generator)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def numbers(network: nn.Module) -> list[Tensor]:
    """Return weights and running statistics as the network holds them, not copies."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def descend(adam: torch.optim.Adam, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Take one step along given gradients."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    adam.step()


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Return (B, classes) bool; unlike torch's own, it maps over examples."""
    return y[:, None] == torch.arange(classes, device=y.device)


def _doublings(size: int) -> int:
    return int(math.log2(size // _STARTS[size]))
