"""The engine's side of noisy per-example gradients: L1 norms in, and for a lot the sum of its examples' own noises."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.special import ndtri
from torch import Tensor

from defenses.gradients import Measures
from defenses.mechanisms.local.budgets import Budgets, PureFilter
from defenses.mechanisms.local.labels import keep_probability
from defenses.mechanisms.local.noisy_gradients import check_max_grad_norm
from defenses.randomness import Noise
from defenses.updates import Tensors


class Feedback(enum.StrEnum):
    """Whose accuracy the budgets react to."""

    PUBLIC = "public"  # of public records: free
    RANDOMISED = "randomised"  # of the members, each of whom answers "right" or "wrong" by randomised response: charged
    RAW = "raw"  # of the members as it is: uncharged, what the paper's text does


@dataclass(frozen=True, kw_only=True)
class NoisyExamples:
    """Laplace noise on each example's gradient, at a budget that changes from epoch to epoch.

    Noise of scale 2 C / epsilon_t on each coordinate of an example's gradient is epsilon_t-DP for that example alone if
    the gradient is at most C long in L1. The engine sees a lot's sum, so what is added to it is a sum of as many
    independent noises as the lot has examples. A lot of one is what a local adversary sees.

    Attributes:
        budgets: How epsilon_t goes on.
        epochs: Epochs of the run.
        max_grad_norm: C, above 0.
        clips: Whether gradients are clipped at C; without it C is only what the noise is scaled to.
        feedback: Whose accuracy is looked at.
        review_epsilon: What each member's answer costs under `RANDOMISED`, in nats.
        filter: What may be spent in all.

    Raises:
        ValueError: If a value is out of range, or the filter does not admit the first epoch.
    """

    budgets: Budgets
    epochs: int
    max_grad_norm: float = 1.0
    clips: bool = True
    feedback: Feedback = Feedback.PUBLIC
    review_epsilon: float = 0.0
    filter: PureFilter = field(default_factory=PureFilter)

    order = 1

    def __post_init__(self) -> None:
        check_max_grad_norm(self.max_grad_norm)
        if self.feedback is Feedback.RANDOMISED:
            keep_probability(self.review_epsilon, 2)
        if not self.filter.admits(0.0, self.budgets.first):
            raise ValueError(
                f"the first epoch costs {self.budgets.first}, which is above the promised total {self.filter.total}; "
                "promise more, or begin with less"
            )

    @property
    def per_review(self) -> float:
        """What a look at the accuracy costs."""
        return self.review_epsilon if self.budgets.reacts and self.feedback is Feedback.RANDOMISED else 0.0

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Put every parameter in one group."""
        return (0,) * len(names)

    def initial(self) -> Tensors:
        """Return the first budget, what is spent with it, the list of budgets, and that the run goes on."""
        spent = torch.zeros(self.epochs, dtype=torch.float64)
        spent[0] = self.budgets.first
        return {
            "epsilon": spent[0].clone(),
            "spent": spent[0].clone(),
            "budgets": spent,
            "accuracy": torch.zeros(self.epochs, dtype=torch.float64),
            "stopped": torch.tensor(False),
        }

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return min(1, C / norm), or 1 without clipping, and one count for each real example.

        The count does not depend on the gradient: an example whose gradient is not finite gets weight 0, and noise.
        """
        real = mask[:, None].to(norms.dtype)
        if not self.clips:
            return torch.ones_like(norms) * real, real
        weights = torch.where(norms > self.max_grad_norm, self.max_grad_norm / norms, torch.ones_like(norms))
        return torch.where(torch.isfinite(norms), weights, torch.zeros_like(norms)) * real, real

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Add one Laplace deviate of scale 2 C / epsilon_t for each example of the lot to every coordinate."""
        drawn = noise.laplace_sums(sums, round(float(statistic_sums[0])))
        scale = 2 * self.max_grad_norm / state["epsilon"]
        return {name: value + drawn[name] * scale.to(value.dtype) for name, value in sums.items()}, state

    def review(self, state: Tensors, measures: Measures, noise: Noise) -> Tensors:
        """Choose the next epoch's budget, and stop where it, or the look that it takes, is no longer admitted."""
        epoch = measures.epoch
        if epoch >= self.epochs:
            return state
        spent, current = float(state["spent"]), float(state["epsilon"])
        if not self.filter.admits(spent, self.per_review + self.budgets.least):
            return state | {"stopped": torch.ones_like(state["stopped"])}
        accuracies = state["accuracy"].clone()
        if self.budgets.reacts:
            spent += self.per_review
            accuracies[epoch - 1] = accuracy = self._accuracy(measures, noise)
            current = self.budgets.after(current, accuracy)
        known = state | {"spent": torch.full_like(state["spent"], spent), "accuracy": accuracies}
        if not self.filter.admits(spent, current):
            return known | {"stopped": torch.ones_like(state["stopped"])}
        budgets = state["budgets"].clone()
        budgets[epoch] = current
        epsilon = torch.full_like(state["epsilon"], current)
        return known | {"epsilon": epsilon, "spent": known["spent"] + epsilon, "budgets": budgets}

    def done(self, state: Tensors) -> bool:
        """Return whether the filter has stopped the run."""
        return bool(state["stopped"])

    def _accuracy(self, measures: Measures, noise: Noise) -> float:
        """Return the accuracy that the budget follows, in [0, 1]."""
        if self.feedback is Feedback.PUBLIC:
            return float(measures.right_on_public().double().mean())
        right = measures.right_on_members()
        if self.feedback is Feedback.RAW:
            return float(right.double().mean())
        keep = keep_probability(self.review_epsilon, 2)
        drawn = noise.normal({"answers": torch.zeros(len(right), dtype=torch.float64, device=right.device)})["answers"]
        said = torch.where(drawn < float(ndtri(keep)), right, ~right).double().mean()
        return min(max((float(said) - (1 - keep)) / (2 * keep - 1), 0.0), 1.0)
