"""Gradient leakage: the training example behind a gradient that somebody shared.

Victims are independent and attacked side by side. What is observed is the gradient of the mean loss over a victim's
batch, whole or after a defense; the model is public. Nothing here is given the private example.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from attacks.reconstruction.batched_lbfgs import minimise
from defenses.records import BoolArray, IntArray
from defenses.updates import Tensors

Float64Array = npt.NDArray[np.float64]
Mismatch = Callable[[Tensor, Tensors, Tensor], Tensor]

_TINY = 1e-300


@dataclass(frozen=True)
class Leaked:
    """What came out of the gradients of V victims with B examples each.

    Attributes:
        x: (V, B, *shape) float64, the examples of a batch in no order of their own.
        labels: (V, B) the labels that were recovered or found together with x.
        mismatch: (V,) what is left of the squared distance between gradients, as a share of where it began.
        converged: (V,) bool: whether that is below the tolerance.
        evaluations: (V,) gradients of the mismatch that were taken, over all restarts.
    """

    x: Float64Array
    labels: IntArray
    mismatch: Float64Array
    converged: BoolArray
    evaluations: IntArray


def shared_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensors:
    """Return what V victims share: the gradient of the mean cross-entropy over each one's batch.

    Args:
        model: Public; its parameters' type is that of the gradients.
        x: (V, B, *shape).
        y: (V, B) labels.

    Returns:
        name -> (V, *shape of the parameter).
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)

    found: Tensors = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    return found


def clipped(gradients: Tensors, *, max_norm: float) -> Tensors:
    """Scale each victim's gradient down to at most this L2 norm."""
    square = sum(value.flatten(1).square().sum(1) for value in gradients.values())
    factor = (max_norm / torch.as_tensor(square).sqrt()).clamp(max=1.0)
    return {name: value * factor.reshape(-1, *[1] * (value.ndim - 1)) for name, value in gradients.items()}


def noised(gradients: Tensors, *, std: float, generator: torch.Generator, laplace: bool = False) -> Tensors:
    """Add independent noise of this standard deviation to each number, Gaussian or Laplace, drawn on the CPU."""

    def draw(value: Tensor) -> Tensor:
        if not laplace:
            return std * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        uniform = torch.rand(value.shape, generator=generator, dtype=value.dtype) - 0.5
        return -std / 2**0.5 * uniform.sign() * torch.log1p(-2 * uniform.abs())

    return {name: value + draw(value).to(value.device) for name, value in gradients.items()}


def sparsified(gradients: Tensors, *, kept: float) -> Tensors:
    """Keep this share of each victim's numbers, those that are largest in size over all parameters; zero the others."""
    sizes = torch.cat([value.flatten(1).abs() for value in gradients.values()], dim=1)
    count = max(1, round(kept * sizes.shape[1]))
    least = sizes.topk(count, dim=1).values[:, -1]
    return {
        name: torch.where(value.abs() >= least.reshape(-1, *[1] * (value.ndim - 1)), value, 0)
        for name, value in gradients.items()
    }


@dataclass(frozen=True)
class Labels:
    """Labels read off the gradient of the last layer's bias.

    Attributes:
        labels: (V, B) in ascending order.
        exact: (V,) bool: whether they follow from the gradient; otherwise they are the likeliest counts.
    """

    labels: IntArray
    exact: BoolArray


def recover_labels(bias_gradient: Tensor, *, batch_size: int) -> Labels:
    """Read the labels of each victim's batch off the gradient of the last layer's bias.

    That gradient is, for class c, the mean probability of c less the share of c in the batch. With one example it is
    negative for the label alone, so that is exact. With more, the mean probabilities are not known: classes are taken
    one by one, each time the one whose gradient is lowest, and a share of one example is then added to it; the number
    of labels is always as asked for.

    Args:
        bias_gradient: (V, C).
        batch_size: B, at least 1.

    Returns:
        Labels, and whether they are exact: B = 1, and one entry alone is negative.

    Raises:
        ValueError: If the shape or B is out of range.

    Source: Zhao, Mopuri and Bilen 2020, "iDLG", for one example; Wainakh et al. 2021, "User-Level Label Leakage from
    Gradients in Federated Learning", for the counting.
    """
    if bias_gradient.ndim != 2 or batch_size < 1:
        raise ValueError(
            f"bias_gradient has shape {tuple(bias_gradient.shape)}, batch_size is {batch_size}; give (victims, "
            "classes), and at least 1"
        )
    left = bias_gradient.clone()
    rows, found = torch.arange(len(left), device=left.device), []
    for _ in range(batch_size):
        label = left.argmin(dim=1)
        found.append(label)
        left[rows, label] += 1 / batch_size
    alone = ((bias_gradient < 0).sum(1) == 1) & (batch_size == 1)
    return Labels(torch.stack(found, dim=1).sort(dim=1).values.cpu().numpy(), alone.cpu().numpy())


def first_layer_inputs(weight_gradient: Tensor, bias_gradient: Tensor) -> Tensor:
    """Return the input of a first linear layer with a bias, exactly, for victims with one example each.

    Every row of the weight's gradient is the input times that row's entry of the bias's gradient; the largest entry
    divides best.

    Args:
        weight_gradient: (V, outputs, inputs).
        bias_gradient: (V, outputs).

    Returns:
        (V, inputs); NaN for a victim whose bias gradient is zero, which tells nothing.

    Source: Phong et al. 2018, "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", section 3.
    """
    best = bias_gradient.abs().argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    divisor = bias_gradient[rows, best]
    return weight_gradient[rows, best] / torch.where(divisor == 0, torch.nan, divisor)[:, None]


@dataclass(frozen=True)
class GradientMatching:
    """Search for the examples whose mean gradient is the observed one, for all victims at once.

    Attributes:
        joint_labels: Whether labels are searched together with the examples (DLG) instead of given (iDLG).
        unknown_scale: Whether the observed gradient was scaled by an unknown number, as clipping does.
        masked: Whether numbers that are zero in the observed gradient were cut away, as sparsification does: they are
            left out of the comparison instead of being matched.
        evaluations: Most evaluations of a restart, at least 1.
        restarts: Beginnings; the best end counts, at least 1.
        tolerance: Share of the first mismatch at which a victim is done.
        spread: Standard deviation of the first guess.
        smoothness: Weight of the total variation of images, against the squared length of the observed gradient.

    Source: Zhu, Liu and Han 2019, "Deep Leakage from Gradients"; Zhao, Mopuri and Bilen 2020, "iDLG". Deviation: L-BFGS
    for every victim by itself, with all of its history and a line search, in one batch.
    """

    joint_labels: bool = False
    unknown_scale: bool = False
    masked: bool = False
    evaluations: int = 300
    restarts: int = 1
    tolerance: float = 1e-18
    spread: float = 0.1
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.restarts < 1:
            raise ValueError(f"evaluations is {self.evaluations}, restarts {self.restarts}; both must be at least 1")

    def run(
        self,
        model: nn.Module,
        observed: Mapping[str, Tensor],
        *,
        shape: tuple[int, ...],
        classes: int,
        generator: torch.Generator,
        labels: IntArray | None = None,
        batch_size: int = 1,
    ) -> Leaked:
        """Attack V victims with B examples each.

        Args:
            model: Public, differentiable twice; float64 parameters converge where float32 ones do not.
            observed: name -> (V, *shape of the parameter), as the victims shared it.
            shape: Of one example.
            classes: Number of classes C.
            generator: On the CPU; draws the first guesses.
            labels: (V, B) as recovered; needed unless they are searched too.
            batch_size: B, at least 1.

        Returns:
            The best of all restarts, victim by victim.

        Raises:
            ValueError: If a parameter has no gradient, or labels are missing or not B for each victim.
        """
        parameters = {name: value.detach() for name, value in model.named_parameters()}
        missing = [name for name in parameters if name not in observed]
        if missing:
            raise ValueError(f"observed holds no gradient of {missing[0]!r}; give one for every parameter")
        if labels is None and not self.joint_labels:
            raise ValueError("labels are missing: recover them, or search for them with joint_labels=True")
        like = next(iter(parameters.values()))
        victims, size = len(next(iter(observed.values()))), batch_size * math.prod(shape)
        seen = {name: observed[name].to(like) for name in parameters}
        known = torch.zeros(victims, batch_size, dtype=torch.long) if labels is None else torch.as_tensor(labels)
        if known.shape != (victims, batch_size):
            raise ValueError(f"labels have shape {tuple(known.shape)}; give ({victims}, {batch_size})")
        targets = nn.functional.one_hot(known, classes).to(like)
        mismatch = grad_and_value(self._mismatch(model, parameters, (batch_size, *shape)))
        together = vmap(mismatch)

        def objective(z: Tensor) -> tuple[Tensor, Tensor]:
            gradients, values = together(z, seen, targets)
            return values.detach(), gradients.detach()

        ends, shares = [], []
        for _ in range(self.restarts):
            start = torch.zeros(victims, size + (batch_size * classes if self.joint_labels else 0), dtype=like.dtype)
            start[:, :size] = self.spread * torch.randn(victims, size, generator=generator, dtype=like.dtype)
            start = start.to(like.device)
            first = objective(start)[0]
            ends.append(minimise(objective, start, evaluations=self.evaluations, tolerance=self.tolerance))
            shares.append(ends[-1].value / first)
        best = torch.stack([end.value for end in ends]).argmin(dim=0)
        rows = torch.arange(victims, device=best.device)
        x = torch.stack([end.x for end in ends])[best, rows]
        left = torch.stack(shares)[best, rows].cpu().numpy()
        return Leaked(
            x=x[:, :size].reshape(victims, batch_size, *shape).cpu().numpy(),
            labels=(
                x[:, size:].reshape(victims, batch_size, classes).argmax(2).cpu().numpy()
                if self.joint_labels
                else known.numpy()
            ),
            mismatch=left,
            converged=left <= self.tolerance,
            evaluations=torch.stack([end.evaluations for end in ends]).sum(dim=0).cpu().numpy(),
        )

    def _mismatch(self, model: nn.Module, parameters: Tensors, shape: tuple[int, ...]) -> Mismatch:
        """Return the squared distance between one victim's gradient and that of a guess, as a function of the guess."""
        size = math.prod(shape)

        def mismatch(z: Tensor, seen: Tensors, target: Tensor) -> Tensor:
            def loss(parameters: Tensors) -> Tensor:
                logs: Tensor = functional_call(model, parameters, (z[:size].reshape(shape),)).log_softmax(dim=1)
                wanted = z[size:].reshape(logs.shape).softmax(1) if self.joint_labels else target
                return -(logs * wanted).sum() / len(logs)

            made: Tensors = grad(loss)(parameters)
            if self.masked:
                made = {name: value * (seen[name] != 0) for name, value in made.items()}
            a, b = (torch.cat([one[name].flatten() for name in seen]) for one in (made, seen))
            if self.unknown_scale:  # the scale that fits best
                a = a * ((a @ b) / (a @ a + _TINY)).clamp(min=0)
            distance = (a - b).square().sum()
            if not self.smoothness:
                return distance
            return distance + self.smoothness * (b @ b).detach() * _variation(z[:size].reshape(shape))

        return mismatch


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of (B, channels, height, width)."""
    down, across = images.diff(dim=-2).abs().sum(), images.diff(dim=-1).abs().sum()
    return (down + across) / images.numel()
