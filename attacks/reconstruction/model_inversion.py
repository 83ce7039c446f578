"""Model inversion: for each class, the record that the target is surest of."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.record_spec import RecordSpec
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, Progress, silent
from defenses.records import Image

_REPORT = 10
_LISTED = 10  # classes that a note names
_LATE, _RISE = 0.9, 0.02  # a margin that gains no more than this share in the steps after this one rises no more


@dataclass(frozen=True)
class ModelInversion(Attack):
    """Climb from dark greys to what the target calls a class with confidence, all classes and greys at once.

    What comes out is what the model has learned of a class, usually near its mean. That is a leak of records only where
    a class is a person, or a record; so it is judged, as every reconstruction, by whether it is nearer to training
    records than to others of the same source.

    A confidence may be out of reach: bounded activations before the last layer bound its logits, and small tanh
    networks are seldom surer than 0.9998 of anything. So the claim says of which classes none reached it, how sure the
    target was of their best, and whether that still rose.

    Attributes:
        restarts: Reconstructions of each class, from as many shades between the least value and the middle; at least 1.
        steps: Most steps, at least 1.
        step_size: Mean movement of a feature in one step, as a share of its range.
        smoothness: Pull towards less total variation of images, against the pull towards the class; at least 0.
        noise: Standard deviation of the noise on the copies that each step looks at, as a share of the range; it falls
            to none at the last step. At least 0.
        copies: How many those are, the first without noise; at least 1.
        confidence: Probability of the class that a reconstruction should reach, in (0, 1).
        early_stop: Whether a reconstruction is finished there, instead of climbing to the last step.

    Source: Fredrikson, Jha and Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence Information".
    Deviations: steps of fixed length up the margin between the class's logit and all others, where the gradient of a
    confidence vanishes; a total-variation prior in place of denoising, as a share of the slope and so the same for flat
    and for steep networks; slopes averaged over noisy copies (Smilkov et al. 2017, "SmoothGrad"), since a network that
    is fooled by texture is not fooled in all of them; no early stop, which looks less like the class; every class in
    one batch. On digits the reconstructions of small networks correlate with the class mean by 0.63 to 0.69, of ReLU
    convolutions by 0.48. Nothing in a model tells whether its backgrounds are dark; where they are light, first guesses
    should be too, and from dark ones the correlation is 0.4 to 0.5.
    """

    restarts: int = 4
    steps: int = 60
    step_size: float = 0.0125
    smoothness: float = 0.25
    noise: float = 0.3
    copies: int = 4
    confidence: float = 0.9999
    early_stop: bool = False

    name = "model_inversion"
    title = "Model inversion"
    paper = "Fredrikson et al. 2015, Model Inversion Attacks that Exploit Confidence Information"
    requires = ThreatModel(frozenset({Capability.WEIGHTS}), candidates=False)
    claims = Reconstructions
    similarity = "ncc"  # brightness and contrast of what a class looks like are anybody's guess
    example = {"steps": 150}

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.steps < 1 or self.copies < 1:
            raise ValueError(
                f"restarts is {self.restarts}, steps {self.steps}, copies {self.copies}; all must be at least 1"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it must lie strictly between 0 and 1")
        if not self.step_size > 0 or not self.smoothness >= 0 or not 0 <= self.noise < math.inf:
            raise ValueError(
                f"step_size is {self.step_size}, smoothness {self.smoothness}, noise {self.noise}; give above 0, and "
                "twice at least 0"
            )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return `restarts` reconstructions of each class, and say which did not reach the confidence.

        Raises:
            NotApplicableError: If the target's answers never change with the record.
        """
        facts, model = view.facts, view.module().requires_grad_(False)
        parameter = next(model.parameters())
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        low, high = facts.value_range
        y = torch.arange(facts.classes, device=parameter.device).repeat(self.restarts)
        shades = low + (high - low) / 2 * torch.arange(self.restarts).repeat_interleave(facts.classes) / self.restarts
        x = shades.to(parameter).reshape(-1, *[1] * len(facts.shape)).repeat(1, *facts.shape)
        length = self.step_size * (high - low) * x[0].numel() ** 0.5
        enough = math.log(self.confidence) - math.log1p(-self.confidence)
        best, sure, late = x.clone(), torch.full_like(x.flatten(1)[:, 0], -torch.inf), None
        sloped = False
        for step in range(self.steps + 1):
            spread = self.noise * (high - low) * (1 - step / self.steps)
            margin, slope = self._climb(model, x, y, spread, draws)
            sloped = sloped or bool(slope.any())
            better = (margin > sure) & ~(self.early_stop & (sure >= enough))  # what is finished stays as it was
            best[better], sure[better] = x[better], margin[better]
            if self.early_stop and bool((sure >= enough).all()):
                break
            if late is None and step >= _LATE * self.steps:
                late = sure.clone()
            direction = _unit(slope) - self.smoothness * rougher(x, facts)
            x = (x + length * _unit(direction)).clamp(low, high)
            if step % _REPORT == 0:
                on_progress(Progress("inverting the model", step, self.steps))
        if not sloped:
            raise NotApplicableError(
                "needs a model whose answers change with the record, and those of this one had no slope in any record "
                "that it was asked about: give a model that was trained, and that does not round its input"
            )
        reached = sure >= enough
        notes = [
            f"{int(reached.sum())} of {len(y)} reconstructions reached a confidence of {self.confidence:g} for their "
            "class."
        ]
        if late is not None and not bool(reached.all()):
            flat = ~reached & (sure - late <= _RISE * sure.abs())
            notes.append(self._missed(sure.reshape(self.restarts, -1).amax(0).cpu(), enough, int(flat.sum())))
        return Reconstructions(best.float().cpu().numpy(), tuple(notes))

    def _climb(
        self, model: nn.Module, x: Tensor, y: Tensor, spread: float, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the margin (B,) at x (B, *shape), and its slope there, averaged over x and its noisy copies."""
        copies = self.copies if spread else 1
        around = x.repeat(copies, *[1] * (x.ndim - 1))
        if copies > 1:
            drawn = torch.randn(around[len(x) :].shape, generator=draws)
            around[len(x) :] += spread * drawn.to(x)
        around.requires_grad_()
        margins = _margin(model(around), y.repeat(copies))
        slopes = torch.zeros_like(around)
        if margins.requires_grad:  # otherwise the model has not looked at the records
            (slopes,) = torch.autograd.grad(margins.sum(), around)
        return margins.detach()[: len(x)], slopes.reshape(copies, *x.shape).mean(0)

    def _missed(self, best: Tensor, enough: float, flat: int) -> str:
        """Return what to say of classes whose best margin (classes,) is not enough, and of reconstructions."""
        missed = torch.nonzero(best < enough)[:, 0].tolist()
        named = ", ".join(f"{label} ({torch.sigmoid(best[label].double()):.6f})" for label in missed[:_LISTED])
        more = f" and {len(missed) - _LISTED} more" if len(missed) > _LISTED else ""
        classes = f"None reached it for class {named}{more}, their best confidence in brackets; " if missed else ""
        return f"{classes}{flat} that fell short had stopped rising."


def rougher(x: Tensor, facts: RecordSpec) -> Tensor:
    """Return the direction, of unit length, in which the total variation of images rises; 0 for what is no image.

    Args:
        x: (B, *shape) records.
        facts: What is public of the target.
    """
    slope = torch.zeros_like(x)
    if not isinstance(facts.kind, Image) or x.ndim != 4:
        return slope
    down, across = x.diff(dim=2).sign(), x.diff(dim=3).sign()
    slope[:, :, 1:] += down
    slope[:, :, :-1] -= down
    slope[:, :, :, 1:] += across
    slope[:, :, :, :-1] -= across
    return _unit(slope)


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the class (B,) over the log of the sum of all others'."""
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)


def _unit(x: Tensor) -> Tensor:
    """Return x (B, *shape) with each record at length 1, or 0 where it was 0."""
    lengths: Tensor = x.flatten(1).norm(dim=1).clamp(min=1e-30)
    return x / lengths.reshape(-1, *[1] * (x.ndim - 1))
