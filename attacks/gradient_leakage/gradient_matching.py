"""Gradient matching: search for the records whose gradient is the one that somebody shared.

Victims are independent and attacked side by side. What is observed is the gradient of the mean loss over a victim's
batch, or the change of the weights after several steps on it, whole or after a defense; the model is public. Nothing
here is given the private records.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from attacks.gradient_leakage.batched_lbfgs import Minimum, Objective, minimise
from attacks.gradient_leakage.shared_gradients import descent
from attacks.gradient_leakage.unfolded_convolution import unfolded
from defenses.engine.memory import freed_memory_is_kept
from defenses.progress import OnProgress, Progress, silent
from defenses.records import BoolArray, IntArray
from defenses.updates import Tensors

Float64Array = npt.NDArray[np.float64]
Mismatch = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-300
_RIDGE = 1e-12  # of the diagonal of a Gram matrix: records that are alike have scales that cannot be told apart
_AT_ONCE = 2**24  # numbers in the gradients of the victims that are attacked side by side
_MANY = 8  # victims for whom products of matrices are faster than convolutions, on a CPU
_REPORT = 20


class Search(Protocol):
    """A way to minimise V functions side by side; variables are records in units of the public range."""

    def __call__(self, objective: Objective, start: Tensor, *, evaluations: int, tolerance: float) -> Minimum:
        """Return the best point of each row; see `batched_lbfgs.minimise`."""
        ...


@dataclass(frozen=True)
class Leaked:
    """What came out of the gradients of V victims with B records each.

    Attributes:
        x: (V, B, *shape) float64, the records of a batch in no order of their own.
        labels: (V, B) the labels that were recovered or found together with x.
        mismatch: (V,) what is left of the distance between gradients, as a share of where it began; 1 if silent.
        converged: (V,) bool: whether that is below the tolerance, and nearer to what was observed than silence is.
        evaluations: (V,) gradients of the mismatch that were taken, over all restarts.
        silent: (V,) bool: whether the observed gradient is all zero, which leaves nothing to match: x is then the
            middle of the range, and labels that were searched for mean nothing.
    """

    x: Float64Array
    labels: IntArray
    mismatch: Float64Array
    converged: BoolArray
    evaluations: IntArray
    silent: BoolArray


@dataclass(frozen=True)
class GradientMatching:
    """Search for the records whose message is the observed one, for all victims at once.

    Attributes:
        joint_labels: Whether labels are searched together with the records (DLG) instead of given (iDLG).
        unknown_scale: Whether each record's gradient was scaled by an unknown number, as clipping does. The scales that
            fit best are then solved for at every guess; after local steps, one for the whole message.
        masked: Whether numbers that are zero in the observed gradient were cut away, as sparsification does: they are
            left out of the comparison instead of being matched.
        cosine: Whether gradients are compared by one less their cosine instead of their squared distance.
        evaluations: Most evaluations of a restart, at least 1.
        restarts: Beginnings; the best end counts, at least 1.
        tolerance: Share of the first mismatch at which a victim is done.
        centre: Mean of the first guess, in units of the public range.
        spread: Standard deviation of the first guess, likewise.
        smoothness: Weight of the total variation of images, against the cosine or the squared length of what was
            observed.
        local_steps: Steps that a victim took before it sent; the search takes them too, and differentiates through
            them. At least 1.
        learning_rate: Of those steps, above 0.
        search: How to minimise.

    Raises:
        ValueError: If a value is out of range.

    Source: Zhu, Liu and Han 2019, "Deep Leakage from Gradients"; Zhao, Mopuri and Bilen 2020, "iDLG"; Geiping et al.
    2020, "Inverting Gradients", for cosine, total variation and local steps. Deviations: L-BFGS for every victim by
    itself, with all of its history and a line search, in one batch; scales solved for.
    """

    joint_labels: bool = False
    unknown_scale: bool = False
    masked: bool = False
    cosine: bool = False
    evaluations: int = 300
    restarts: int = 1
    tolerance: float = 1e-18
    centre: float = 0.0
    spread: float = 0.1
    smoothness: float = 0.0
    local_steps: int = 1
    learning_rate: float = 0.1
    search: Search = field(default=minimise)

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.restarts < 1 or self.local_steps < 1:
            raise ValueError(
                f"evaluations is {self.evaluations}, restarts {self.restarts}, local_steps {self.local_steps}; all "
                "must be at least 1"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")

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
        value_range: tuple[float, float] = (0.0, 1.0),
        on_progress: OnProgress = silent,
    ) -> Leaked:
        """Attack V victims with B records each.

        Args:
            model: Public, differentiable twice; float64 parameters converge where float32 ones do not.
            observed: name -> (V, *shape of the parameter), as the victims shared it.
            shape: Of one record.
            classes: Number of classes C.
            generator: On the CPU; draws the first guesses.
            labels: (V, B) as recovered; needed unless they are searched too.
            batch_size: B, at least 1.
            value_range: (low, high) of the features, public; a scale for the search, not a limit of L-BFGS.
            on_progress: Called while it works.

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
        seen = torch.cat([observed[name].to(like).flatten(1) for name in parameters], dim=1)
        victims, size = len(seen), batch_size * math.prod(shape)
        known = torch.zeros(victims, batch_size, dtype=torch.long) if labels is None else torch.as_tensor(labels)
        if known.shape != (victims, batch_size):
            raise ValueError(f"labels have shape {tuple(known.shape)}; give ({victims}, {batch_size})")
        targets = nn.functional.one_hot(known, classes).to(like)
        many = victims >= _MANY and like.device.type == "cpu"
        network = unfolded(model) if many else model
        together = vmap(grad_and_value(self._mismatch(network, parameters, (batch_size, *shape), value_range)))
        step = max(1, _AT_ONCE // (seen.shape[1] * (batch_size if self._scaled_apart else self.local_steps)))
        parts = [slice(first, first + step) for first in range(0, victims, step)]
        total, calls = self.restarts * len(parts) * self.evaluations, 0

        def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal calls
            calls += 1
            if calls % _REPORT == 0:
                on_progress(Progress("matching gradients", min(calls, total), total))
            messages, wanted = seen[part], targets[part]
            if len(rows) < len(messages):
                messages, wanted = messages[rows], wanted[rows]
            gradients, values = together(z, messages, wanted)
            return values.detach(), gradients.detach()

        best: Minimum | None = None
        shares = torch.full((victims,), torch.inf).to(like)
        for _ in range(self.restarts):
            start = torch.zeros(victims, size + (batch_size * classes if self.joint_labels else 0), dtype=like.dtype)
            drawn = torch.randn(victims, size, generator=generator, dtype=like.dtype)
            start[:, :size] = self.centre + self.spread * drawn
            start = start.to(like.device)
            ends, first = [], []
            for part in parts:
                begun = start[part]
                with freed_memory_is_kept():
                    first.append(objective(begun, torch.arange(len(begun), device=begun.device))[0])
                    ends.append(self.search(objective, begun, evaluations=self.evaluations, tolerance=self.tolerance))
            best, shares = _better(best, _joined(ends), shares, torch.cat(first))
        assert best is not None
        silent, low = ~(seen != 0).any(dim=1), value_range[0]
        # A guess whose own gradient vanishes is near to a small message too, and explains nothing of it.
        explained = best.value < (torch.ones_like(best.value) if self.cosine else seen.square().sum(1))
        left = torch.where(silent, 1, shares)
        units = torch.where(silent[:, None], 0.5, best.x[:, :size])
        return Leaked(
            x=(low + (value_range[1] - low) * units).reshape(victims, batch_size, *shape).cpu().numpy(),
            labels=(
                best.x[:, size:].reshape(victims, batch_size, classes).argmax(2).cpu().numpy()
                if self.joint_labels
                else known.numpy()
            ),
            mismatch=left.cpu().numpy(),
            converged=((left <= self.tolerance) & explained & ~silent).cpu().numpy(),
            evaluations=best.evaluations.cpu().numpy(),
            silent=silent.cpu().numpy(),
        )

    @property
    def _scaled_apart(self) -> bool:
        """Whether every record has a scale of its own."""
        return self.unknown_scale and self.local_steps == 1

    def _mismatch(
        self, model: nn.Module, parameters: Tensors, shape: tuple[int, ...], value_range: tuple[float, float]
    ) -> Mismatch:
        """Return the distance between one victim's message and that of a guess, as a function of the guess."""
        size, (low, high) = math.prod(shape), value_range

        def message(x: Tensor, wanted: Tensor) -> Tensor:
            def loss(parameters: Tensors) -> Tensor:
                logs: Tensor = functional_call(model, parameters, (x,)).log_softmax(dim=1)
                return -(logs * wanted).sum() / len(logs)

            made = descent(grad(loss), parameters, steps=self.local_steps, learning_rate=self.learning_rate)
            return torch.cat([value.flatten() for value in made.values()])

        def mismatch(z: Tensor, seen: Tensor, target: Tensor) -> Tensor:
            guess = z[:size].reshape(shape)
            x, wanted = low + (high - low) * guess, target
            if self.joint_labels:
                wanted = z[size:].reshape(target.shape).softmax(1)
            made = vmap(message)(x[:, None], wanted[:, None]) if self._scaled_apart else message(x, wanted)[None]
            if self.masked:
                made = made * (seen != 0)
            fitted = _scales(made.detach(), seen) @ made if self.unknown_scale else made[0]
            square = (seen @ seen).detach()
            if self.cosine:
                distance = 1 - fitted @ seen / ((fitted @ fitted) * square + _TINY).sqrt()
                square = torch.ones_like(square)
            else:
                distance = (fitted - seen) @ (fitted - seen)
            if not self.smoothness:
                return distance
            return distance + self.smoothness * square * _variation(guess)

        return mismatch


def _scales(made: Tensor, seen: Tensor) -> Tensor:
    """Return (B,) the scales at which rows (B, P) add up to what was seen (P,) best, none below 0.

    Since they are the best, moving them changes the distance by nothing at first order, and they need no derivative.
    """
    gram = made @ made.T
    if len(made) > 1:
        ridge = _RIDGE * gram.diagonal().sum() + _TINY
        scales: Tensor = torch.linalg.solve(gram + ridge * torch.eye(len(made)).to(gram), made @ seen)
        return scales.clamp(min=0)
    return ((made @ seen) / (gram[0, 0] + _TINY)).clamp(min=0)


def _better(best: Minimum | None, end: Minimum, shares: Tensor, first: Tensor) -> tuple[Minimum, Tensor]:
    """Return for each row the lower of two ends, evaluations added up, and what share it is of where it began."""
    if best is None:
        return end, end.value / first
    lower = (end.value < best.value) | best.value.isnan()
    kept = Minimum(
        torch.where(lower[:, None], end.x, best.x),
        torch.where(lower, end.value, best.value),
        best.evaluations + end.evaluations,
        torch.where(lower, end.converged, best.converged),
    )
    return kept, torch.where(lower, end.value / first, shares)


def _joined(ends: list[Minimum]) -> Minimum:
    fields = zip(*((end.x, end.value, end.evaluations, end.converged) for end in ends), strict=True)
    return Minimum(*(torch.cat(parts) for parts in fields))


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of (B, channels, height, width)."""
    down, across = images.diff(dim=-2).abs().sum(), images.diff(dim=-1).abs().sum()
    return (down + across) / images.numel()
