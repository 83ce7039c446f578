"""How much privacy each epoch may spend: the paper's two rules, and the filter that ends a run in time."""

import enum
import math
from dataclasses import dataclass

from defenses.mechanisms.local.preparation import check_epsilon


class BudgetRule(enum.StrEnum):
    """Which of the paper's two rules gives the budget of the next epoch.

    They contradict each other, and the first one contradicts the text. As accuracy a rises to its target, `SCALED`
    gives more budget, so less noise late; `STEPPED` adds ever less, and takes away above the target. The text wants
    less noise early and more late: `SCALED` does so with a negative alpha.
    """

    SCALED = "scaled"  # epsilon_t = epsilon_0 (1 + alpha a / target)
    STEPPED = "stepped"  # epsilon_(t+1) = epsilon_t + beta (target - a) / target


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The budgets of a run, epoch by epoch: the first one is given, every other follows from an accuracy.

    Attributes:
        first: epsilon_0, above 0, in nats.
        rule: Which rule.
        alpha: Of `SCALED`; finite, of either sign.
        beta: Of `STEPPED`; finite, at least 0.
        target_accuracy: In (0, 1].
        least: Floor of every budget, in (0, first]: either rule can reach 0 and below.

    Raises:
        ValueError: If a value is out of range.

    Source: Zhang et al., phase A, step 1, and phase D, step 2. The floor is ours.
    """

    first: float
    rule: BudgetRule = BudgetRule.SCALED
    alpha: float = 0.0
    beta: float = 0.0
    target_accuracy: float = 0.9
    least: float = 0.01

    def __post_init__(self) -> None:
        check_epsilon(self.first, "epsilon of the first epoch")
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha is {self.alpha}; it must be finite")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"beta is {self.beta}; it must be at least 0 and finite")
        if not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy is {self.target_accuracy}; it must be in (0, 1]")
        if not 0 < self.least <= self.first:
            raise ValueError(
                f"the floor of the budgets is {self.least}; it must be above 0 and at most the first, {self.first}"
            )

    @property
    def reacts(self) -> bool:
        """Whether the accuracy changes anything."""
        return (self.alpha if self.rule is BudgetRule.SCALED else self.beta) != 0

    def after(self, current: float, accuracy: float) -> float:
        """Return the budget of the next epoch.

        Args:
            current: Budget of the epoch that is over.
            accuracy: Of the model after it, in [0, 1].

        Examples:
            >>> Budgets(first=1.0, alpha=0.5, target_accuracy=0.8).after(1.0, 0.4)
            1.25
            >>> Budgets(first=1.0, rule=BudgetRule.STEPPED, beta=0.5, target_accuracy=0.8).after(1.0, 0.4)
            1.25
        """
        if self.rule is BudgetRule.SCALED:
            wanted = self.first * (1 + self.alpha * accuracy / self.target_accuracy)
        else:
            wanted = current + self.beta * (self.target_accuracy - accuracy) / self.target_accuracy
        return max(wanted, self.least)

    def most(self, epochs: int) -> float:
        """Return the largest sum of budgets that any accuracies can lead to in so many epochs."""
        total = current = self.first
        for _ in range(epochs - 1):
            current = max(self.after(current, 0.0), self.after(current, 1.0))  # both rules are linear in accuracy
            total += current
        return total


@dataclass(frozen=True)
class PureFilter:
    """Says before anything is spent whether it still fits: the sum of adaptively chosen pure budgets may not pass.

    Under pure differential privacy basic composition holds whatever the budgets were chosen by, so that who stops
    before the sum passes `total` is total-DP. What was spent in one run is no guarantee: another run would have spent
    something else. `total` is.

    Attributes:
        total: What is promised, above 0; infinity admits everything.

    Raises:
        ValueError: If it is not above 0.

    Source: Rogers, Roth, Ullman and Vadhan 2016, "Privacy Odometers and Filters: Pay-as-you-Go Composition".
    """

    total: float = math.inf

    def __post_init__(self) -> None:
        if not self.total > 0:
            raise ValueError(f"the promised total is {self.total}; it must be above 0")

    def admits(self, spent: float, asked: float) -> bool:
        """Return whether `asked` may be spent on top of what was."""
        return spent + asked <= self.total
