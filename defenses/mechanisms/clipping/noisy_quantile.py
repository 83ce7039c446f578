"""The repaired rule of `adaptive_clipping`: a threshold that follows a noisy quantile of a noisily chosen group.

Every step answers three questions about the lot with Gaussian noise: the clipped sum, how many of each label lie below
the threshold, and how long the clipped gradients of each label are. Nothing but such answers moves the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.randomness import Noise
from defenses.updates import Tensors

MEMORY = 0.9  # decay of the running mean of the noisy scores
RAREST = 0.1  # a label with less than this share of its expected records is not chosen: its score would be noise
FURTHEST = 1e4  # the threshold stays within this factor of where it began


@dataclass(frozen=True)
class NoisyQuantile:
    """Clip at a threshold that follows a quantile of the norms of the label with the smallest gradients.

    The threshold moves by C <- C exp(-rate (b - quantile)), where b is the noisy share of the chosen label's gradients
    that are not above C. Indicators are centred (1/2 below the threshold, -1/2 above it) and their sums divided by a
    public number, so that a record moves one count by 1/2. The chosen label is the one with the smallest mean of
    v = min(norm, C) / C. Each label's sums of v and of 1 - v are released; a record moves this pair by
    sqrt(v^2 + (1 - v)^2) <= 1, and their running means give the mean of v however many records the label has.

    Attributes:
        labels: Number of labels L, at least 1.
        expected: Public divisor of the counts: the expected records of one label in a lot, above 0.
        initial_norm: Threshold C of the first step, above 0.
        quantile: Share of the chosen label's gradients that shall stay unclipped, in (0, 1).
        rate: Step of the threshold's logarithm, at least 0.
        gradient_noise: Standard deviation of the noise on the sum over C, at least 0.
        count_noise: Standard deviation of the noise on each label's count, in records, at least 0.
        score_noise: Standard deviation of the noise on each label's sums of v and 1 - v, in records, at least 0.

    Raises:
        ValueError: If a value is out of range.

    Source: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", Algorithm 1. We keep the share
    in [0, 1] (post-processing), so that a step never moves the threshold by more than its rate allows, and we count
    each label by itself: one record is in one count, so that costs what one count costs.
    """

    labels: int
    expected: float
    initial_norm: float
    quantile: float
    rate: float
    gradient_noise: float
    count_noise: float
    score_noise: float

    order = 2

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise ValueError(f"labels is {self.labels}; it must be at least 1")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it must lie strictly between 0 and 1")
        for name in ("expected", "initial_norm"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be above 0 and finite")
        for name in ("rate", "gradient_noise", "count_noise", "score_noise"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be at least 0 and finite")

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Put every parameter in one group: the norm is that of the whole gradient."""
        return (0,) * len(names)

    def initial(self) -> Tensors:
        """Return the first threshold, sums of v and of 1 - v (2, L) of nothing, no choice yet (-1) and no steps."""
        return {
            "threshold": torch.tensor(self.initial_norm),
            "lengths": torch.zeros(2, self.labels),
            "chosen": torch.tensor(-1.0),
            "steps": torch.tensor(0.0),
        }

    def threshold(self, state: Tensors) -> Tensor:
        """Return the threshold in force."""
        return state["threshold"]

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return min(1, C / norm), and each record's entries in the L counts and 2 L scores; all 0 for padding.

        A gradient whose norm is not finite gets weight 0, and counts as one above the threshold.
        """
        real, threshold = mask.to(norms.dtype), state["threshold"].to(norms.dtype)
        norm = norms[:, 0]
        finite = torch.isfinite(norm)
        weights = torch.where(norm > threshold, threshold / norm, torch.ones_like(norm))
        weights = torch.where(finite, weights, torch.zeros_like(norm)) * real
        below = torch.where(norm <= threshold, 0.5, -0.5).to(norms.dtype)
        length = torch.where(finite, (norm / threshold).clamp(max=1.0), torch.ones_like(norm))
        own = (y[:, None] == torch.arange(self.labels, device=y.device)).to(norms.dtype) * real[:, None]
        entries = [own * entry[:, None] for entry in (below, length, 1 - length)]
        return weights[:, None], torch.cat(entries, dim=1)

    def answers(self, statistic_sums: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return the counts (L,) and the sums of v and of 1 - v (2, L) of a lot with their noise."""
        deviation = [self.count_noise] * self.labels + [self.score_noise] * (2 * self.labels)
        drawn = noise.normal({"answers": statistic_sums})["answers"]
        noisy = statistic_sums + statistic_sums.new_tensor(deviation) * drawn
        return noisy[: self.labels], noisy[self.labels :].view(2, self.labels)

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Add noise to the sum of all labels, then to the answers, and move the threshold by the answers."""
        kept = state["threshold"]
        released = sums
        if self.gradient_noise > 0:
            drawn, scale = noise.normal(sums), self.gradient_noise * kept
            released = {name: value + scale.to(value.dtype) * drawn[name] for name, value in sums.items()}
        counts, lengths = (found.to(kept.dtype) for found in self.answers(statistic_sums, noise))
        memory = torch.where(state["steps"] > 0, MEMORY, 0.0).to(kept.dtype)
        running = memory * state["lengths"] + (1 - memory) * lengths
        chosen = self.smallest(running)
        share = (counts[chosen] / self.expected + 0.5).clamp(0.0, 1.0)
        moved = (kept * torch.exp(-self.rate * (share - self.quantile))).clamp(
            self.initial_norm / FURTHEST, self.initial_norm * FURTHEST
        )
        return released, {
            "threshold": moved,
            "lengths": running,
            "chosen": chosen.to(kept.dtype),
            "steps": state["steps"] + 1,
        }

    def smallest(self, lengths: Tensor) -> Tensor:
        """Return the label with the smallest mean of v, from noisy sums of v and of 1 - v (2, L)."""
        sizes = lengths.sum(0)
        means = lengths[0] / sizes
        return means.where(sizes > RAREST * self.expected, means.new_tensor(math.inf)).argmin()
