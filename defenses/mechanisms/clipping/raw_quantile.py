"""The literal rule of `adaptive_clipping`: a raw quantile as threshold, and noise for one label's records alone.

Both choices look at raw gradients, and the labels that are not chosen take their steps without any noise: no record of
theirs is protected. The rule is here because the text has it, and to be audited.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.gradients import ClippedGaussian
from defenses.randomness import Noise
from defenses.updates import Tensors

EVERYBODY = -1.0  # who is protected in the first lot, before any gradient was seen


@dataclass(frozen=True)
class RawQuantile:
    """Clip each label's records at a quantile of their own norms, and add noise to one label's sum only.

    The engine hands over the records of one label at a time, in the order of the labels, each lot being a round of L
    steps. A step clips at the quantile of the norms that it sees. The label with the smallest mean clipped norm in one
    round is the protected one of the next; in the first round all are.

    Attributes:
        labels: Number of labels L, at least 1.
        initial_norm: Threshold until a label has been seen, above 0.
        quantile: Which quantile of the norms is the threshold, in (0, 1).
        noise_multiplier: Standard deviation of the noise over the threshold, at least 0.

    Raises:
        ValueError: If a value is out of range.

    Source: Cheng et al. 2026; what we chose where it is silent is said in `defenses.schemes.adaptive_clipping`.
    """

    labels: int
    initial_norm: float
    quantile: float
    noise_multiplier: float

    order = 2

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise ValueError(f"labels is {self.labels}; it must be at least 1")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it must lie strictly between 0 and 1")
        if not (self.initial_norm > 0 and math.isfinite(self.initial_norm)):
            raise ValueError(f"initial_norm is {self.initial_norm}; it must be above 0 and finite")
        if not (self.noise_multiplier >= 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}; it must be at least 0 and finite")

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Put every parameter in one group: the norm is that of the whole gradient."""
        return (0,) * len(names)

    def initial(self) -> Tensors:
        """Return the first threshold of every label, no scores yet (-1), and all labels protected."""
        return {
            "thresholds": torch.full((self.labels,), self.initial_norm),
            "scores": torch.full((self.labels,), -1.0),
            "label": torch.tensor(-1.0),
            "chosen": torch.tensor(EVERYBODY),
        }

    def prepare_step(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors, noise: Noise) -> Tensors:
        """Turn to the next label and take its threshold from its raw norms; a new round chooses whom to protect."""
        label = int(state["label"] + 1) % self.labels
        thresholds, scores, chosen = state["thresholds"].clone(), state["scores"].clone(), state["chosen"]
        seen = scores >= 0
        if label == 0 and bool(seen.any()):
            chosen = scores.where(seen, scores.new_tensor(math.inf)).argmin().to(chosen.dtype)
        found = norms[:, 0][mask]
        found = found[found.isfinite()]
        if len(found):
            threshold = torch.quantile(found, self.quantile).clamp(min=torch.finfo(torch.float32).tiny)
            thresholds[label] = threshold.to(thresholds.dtype)
            scores[label] = found.clamp(max=threshold).mean().to(scores.dtype)
        return {
            "thresholds": thresholds,
            "scores": scores,
            "label": torch.full_like(state["label"], label),
            "chosen": chosen,
        }

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return min(1, C / norm) for real examples and 0 for padding and for norms that are not finite."""
        threshold = self.threshold(state).to(norms.dtype)
        weights = torch.where(norms > threshold, threshold / norms, torch.ones_like(norms))
        weights = torch.where(torch.isfinite(norms), weights, torch.zeros_like(norms))
        return weights * mask[:, None].to(norms.dtype), norms.new_zeros((len(norms), 0))

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Add noise if this label is protected, and release its sum as it is if not."""
        if float(state["chosen"]) not in (EVERYBODY, float(state["label"])):
            return sums, state
        threshold = float(self.threshold(state))
        return ClippedGaussian(threshold, self.noise_multiplier).release(sums, statistic_sums, state, noise)

    def threshold(self, state: Tensors) -> Tensor:
        """Return the threshold of the label whose step it is."""
        return state["thresholds"].gather(0, state["label"].long().clamp(min=0)[None])[0]
