"""Model inversion: for each class, the record that the target is surest of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.protocol import Attack, Reconstructions
from attacks.threat_model import Capability, Facts, ThreatModel, View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import Image

_REPORT = 50


@dataclass(frozen=True)
class ModelInversion(Attack):
    """Climb from plain grey to what the target calls a class with confidence, all classes and greys at once.

    What comes out is what the model has learned of a class, usually near its mean. That is a leak of records only where
    a class is a person, or a record; so it is judged, as every reconstruction, by whether it is nearer to training
    records than to others of the same source.

    Attributes:
        restarts: Reconstructions of each class, from as many shades between the least value and the middle; at least 1.
        steps: Most steps, at least 1.
        step_size: Mean movement of a feature in one step, as a share of its range.
        smoothness: Weight of the total variation of images, per pixel.
        confidence: Probability of the class at which a reconstruction is finished, in (0, 1).

    Source: Fredrikson, Jha and Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence Information".
    Deviations: steps of fixed length up the margin between the class's logit and all others, where the gradient of a
    confidence vanishes; a total-variation prior in place of denoising; every class in one batch. On digits the
    reconstructions of a small network correlate with the class mean by 0.6, from noise and with Adam by 0.3.
    """

    restarts: int = 4
    steps: int = 200
    step_size: float = 0.0125
    smoothness: float = 2.0
    confidence: float = 0.9999

    name = "model_inversion"
    title = "Model inversion"
    paper = "Fredrikson et al. 2015, Model Inversion Attacks that Exploit Confidence Information"
    requires = ThreatModel(frozenset({Capability.WEIGHTS}), candidates=False)
    claims = Reconstructions
    similarity = "ncc"  # brightness and contrast of what a class looks like are anybody's guess
    usual = False  # says what a class looks like, seldom what a record does

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.steps < 1:
            raise ValueError(f"restarts is {self.restarts}, steps {self.steps}; both must be at least 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it must lie strictly between 0 and 1")
        if not self.step_size > 0 or self.smoothness < 0:
            raise ValueError(
                f"step_size is {self.step_size}, smoothness {self.smoothness}; give above 0, and at least 0"
            )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return `restarts` reconstructions of each class, and say how many reached the confidence."""
        facts, model = view.facts, view.module()
        parameter = next(model.parameters())
        low, high = facts.value_range
        y = torch.arange(facts.classes, device=parameter.device).repeat(self.restarts)
        shades = low + (high - low) / 2 * torch.arange(self.restarts).repeat_interleave(facts.classes) / self.restarts
        x = shades.to(parameter).reshape(-1, *[1] * len(facts.shape)).repeat(1, *facts.shape)
        best, sure = x.clone(), torch.zeros_like(x.flatten(1)[:, 0])
        length = self.step_size * (high - low) * x[0].numel() ** 0.5
        for step in range(self.steps):
            x.requires_grad_()
            logits = model(x)
            confidence = torch.softmax(logits.detach(), dim=1).gather(1, y[:, None])[:, 0]
            better = (sure < self.confidence) & (confidence > sure)  # what is finished stays as it was
            best[better], sure[better] = x.detach()[better], confidence[better]
            if not (sure < self.confidence).any():
                break
            climb = _margin(logits, y) - self.smoothness * _variation(x, facts) / (high - low)
            (gradient,) = torch.autograd.grad(climb.sum(), x)
            norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, *[1] * len(facts.shape))
            x = (x.detach() + length * gradient / norm).clamp(low, high)
            if step % _REPORT == 0:
                on_progress(Progress("inverting the model", step, self.steps))
        reached = int((sure >= self.confidence).sum())
        note = f"{reached} of {len(y)} reconstructions reached a confidence of {self.confidence:g} for their class."
        return Reconstructions(best.float().cpu().numpy(), (note,))


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the class (B,) over the log of the sum of all others'."""
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)


def _variation(x: Tensor, facts: Facts) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels (B,), 0 for what is no image."""
    if not isinstance(facts.kind, Image) or x.ndim != 4:
        return x.new_zeros(len(x))
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).sum(1)
    across = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(1).sum(1)
    return (down + across) / x[0].numel()
