"""Gradient norm: at a record that it was trained on, a model has little left to learn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from attacks.capabilities import Capability
from attacks.membership.signals import logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.engine.per_example import PerExampleGradients
from defenses.gradients import ClippedGaussian
from defenses.progress import OnProgress, Progress, silent
from defenses.records import FloatArray, IntArray

Float64Array = npt.NDArray[np.float64]

_BATCH_BYTES = 2**28
_LARGEST_BATCH = 256


@dataclass(frozen=True)
class _WholeGradient(ClippedGaussian):
    """All parameters in one group, in a norm of either order; neither clipping nor noise is used."""

    order: int = 2


def gradient_norms(
    module: nn.Module, x: FloatArray, y: IntArray, *, order: int = 2, on_progress: OnProgress = silent
) -> Float64Array:
    """Return the norm of the gradient of each record's loss with respect to all parameters.

    Exact per example and in float64, through the closed forms of the training engine where the network has them, and
    example by example (mapped) where it has not, as with BatchNorm in evaluation mode. Batches are as large as
    256 MiB of per-example gradients allow.

    Args:
        module: The network, (n, *shape) to logits (n, C); it is converted to float64 and gets hooks, so give a copy.
        x: (n, *shape) records.
        y: (n,) labels.
        order: 1 or 2, the order of the norm.
        on_progress: Called after each batch.

    Returns:
        (n,) float64, at least 0. The part of the true class is p - 1, which has lost its digits where the loss is below
        1e-16; the norm is then too small by a factor of at most 2.

    Raises:
        ValueError: If order is neither 1 nor 2.

    Examples:
        >>> module = nn.Linear(1, 2)
        >>> _ = nn.init.zeros_(module.weight), nn.init.zeros_(module.bias)
        >>> gradient_norms(module, np.zeros((1, 1), dtype=np.float32), np.array([0])).round(6)
        array([0.707107])

    Source: Nasr, Shokri, Houmansadr 2019, "Comprehensive Privacy Analysis of Deep Learning", section III.
    """
    if order not in (1, 2):
        raise ValueError(f"order is {order}; choose 1 or 2")
    if not len(y):
        return np.empty(0)
    module = module.double().eval()
    engine = PerExampleGradients(module, _WholeGradient(1.0, 0.0, order), x.shape[1:])
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    place = next(iter(parameters.values())).device
    found = []
    for part in _batches(engine, parameters, x, y):
        on_records = torch.from_numpy(np.ascontiguousarray(x[part])).to(place, torch.float64)
        norms = engine.norms(parameters, on_records, torch.from_numpy(y[part]).to(place))
        found.append(norms[:, 0].cpu().numpy())
        on_progress(Progress("gradient norms", part.stop, len(y)))
    return np.concatenate(found)


def _batches(
    engine: PerExampleGradients, parameters: dict[str, torch.Tensor], x: FloatArray, y: IntArray
) -> Iterator[slice]:
    """Yield slices of records whose gradients fit into memory together."""
    like = next(iter(parameters.values()))
    one = torch.from_numpy(np.ascontiguousarray(x[:1])).to(like)
    _, total = engine.numbers(parameters, one, torch.from_numpy(y[:1]).to(like.device))
    size = min(_LARGEST_BATCH, max(1, _BATCH_BYTES // (total * like.element_size())))
    for start in range(0, len(y), size):
        yield slice(start, min(start + size, len(y)))


@dataclass(frozen=True)
class GradientNorm(Attack):
    """Score each record by the norm of its loss gradient, the smaller the higher; needs the weights alone.

    Attributes:
        order: 2 or 1, the order of the norm.

    Source: Nasr, Shokri, Houmansadr 2019, "Comprehensive Privacy Analysis of Deep Learning". Deviation: the norm alone
    is the score, with no network trained on the gradients, which would need known members.
    """

    order: int = 2

    name = "gradient_norm"
    title = "Gradient norm"
    paper = "Nasr, Shokri, Houmansadr 2019, Comprehensive Privacy Analysis of Deep Learning"
    requires = ThreatModel(frozenset({Capability.WEIGHTS, Capability.RECORDS}))

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order is {self.order}; choose 1 or 2")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return minus the logarithm of every candidate's gradient norm."""
        x, y = view.candidates.x, view.candidates.y
        norms = gradient_norms(view.module(), x, y, order=self.order, on_progress=on_progress)
        scores = -np.log(np.maximum(norms, np.finfo(np.float64).tiny))
        zero = norms == 0
        if zero.any():
            # The square of a gradient below 1e-162 is zero; the confidence still tells such records apart.
            confidence = logit_confidence(view.logits(x[zero]), y[zero])
            scores[zero] += confidence - confidence.min()
        return MembershipScores(scores)
