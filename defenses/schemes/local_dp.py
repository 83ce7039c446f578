"""Local differential privacy with a dynamic budget: noise at the source, noise on each gradient (Zhang et al.)."""

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from defenses.defense import Defense, History, Prepared, Sampler
from defenses.events import PureDpEvent
from defenses.gradients import GradientRule
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.input_transform import make_input_transform
from defenses.mechanisms.local.budgets import BudgetRule, Budgets, PureFilter
from defenses.mechanisms.local.gradient_rule import Feedback, NoisyExamples
from defenses.mechanisms.local.labels import keep_probability
from defenses.mechanisms.local.noisy_gradients import check_max_grad_norm
from defenses.mechanisms.local.preparation import (
    Standardisation,
    check_epsilon,
    clipped_statistics,
    public_statistics,
    raw_statistics,
)
from defenses.mechanisms.local.privatize import Source, check_bound, privatize
from defenses.modes import Mode
from defenses.records import Image, Records
from defenses.sampling import Lots


class Statistics(enum.StrEnum):
    """What records are standardised by."""

    PUBLIC = "public"  # mean and deviation of public records: free
    CLIPPED = "clipped"  # noisy ones of the members, clipped to the public range: charged


@dataclass(frozen=True, kw_only=True)
class LocalDP(Defense):
    """Noise on every feature at its source, and on every example's gradient at a budget that follows the accuracy.

    Either part can run alone: leave out the other's epsilon. Literal, nothing is clipped, statistics and accuracy are
    those of the raw members, each feature gets noise for the whole epsilon, labels stay, and there is no filter; the
    sensitivity is taken to be 2 `bound` and 2 `max_grad_norm` as if there were clipping, because the text gives none.
    Repaired, what is proved is the smaller of what the records paid at their source (what is computed from them is
    post-processing) and the promised total of the gradients, plus the statistics where they are charged.

    The adversary of the engine sees the noisy sum of each lot; the local one sees each noisy gradient before it is
    summed, and has the same guarantee, as every example's noise is enough by itself. The sum hides far more. "Local"
    holds only where noise is added on the user's side (`defenses.mechanisms.local.privatize`,
    `defenses.mechanisms.local.noisy_gradients`): here one trainer draws it.

    Attributes:
        mode: Repaired or literal; literal ignores `label_epsilon`, `statistics`, `feedback` and `total_epsilon`.
        source_epsilon: For the features of one record, in nats; None adds no noise at the source.
        label_epsilon: For its label, by randomised response; None: labels are public.
        bound: Features are clipped to [-bound, bound] standard deviations, above 0.
        statistics: What records are standardised by.
        statistics_epsilon: What `CLIPPED` statistics cost, in nats.
        gradient_epsilon: epsilon_0 of the gradients, in nats; None adds no noise to them.
        max_grad_norm: Clipping threshold C of each example's gradient in L1, above 0.
        budget_rule: Which of the paper's two rules.
        alpha: Of the scaled rule; 0 leaves the budget as it is.
        beta: Of the stepped rule, at least 0.
        target_accuracy: In (0, 1].
        least_epsilon: Floor of the budgets, in (0, gradient_epsilon].
        feedback: Whose accuracy the budgets follow: of public records, or the members' randomised answers.
        review_epsilon: What each such answer costs, in nats.
        total_epsilon: What the gradients may cost in all; the run stops before it would be passed. None promises the
            most that the rule can spend in the given epochs.

    Raises:
        ValueError: If neither part is given an epsilon, or a value is out of range.

    Source: Zhang, Li, Hou, Li and Xu, "AI Model Training Data Privacy Protection Scheme Based on Local Differential
    Privacy". An "iteration" of its rules is an epoch here, sums are divided by the nominal lot size, and the update
    rule is the recipe's (theirs is plain SGD).
    """

    mode: Mode = Mode.REPAIRED
    source_epsilon: float | None = None
    label_epsilon: float | None = None
    bound: float = 3.0
    statistics: Statistics = Statistics.PUBLIC
    statistics_epsilon: float | None = None
    gradient_epsilon: float | None = None
    max_grad_norm: float = 1.0
    budget_rule: BudgetRule = BudgetRule.SCALED
    alpha: float = 0.5
    beta: float = 0.5
    target_accuracy: float = 0.9
    least_epsilon: float = 0.01
    feedback: Feedback = Feedback.PUBLIC
    review_epsilon: float = 0.1
    total_epsilon: float | None = None

    name = "local_dp"
    title = "local DP"
    paper = "Zhang et al., AI Model Training Data Privacy Protection Scheme Based on Local Differential Privacy"
    sampler = Sampler.SHUFFLE
    neighboring = Neighboring.REPLACE_ONE
    example = {"gradient_epsilon": 1.0}

    def __post_init__(self) -> None:
        if self.source_epsilon is None and self.gradient_epsilon is None:
            raise ValueError("neither source_epsilon nor gradient_epsilon is given; give one of them or both")
        for name in ("source_epsilon", "label_epsilon", "gradient_epsilon", "total_epsilon"):
            if (value := getattr(self, name)) is not None:
                check_epsilon(value, name)
        if (self.statistics is Statistics.CLIPPED) != (self.statistics_epsilon is not None):
            raise ValueError(
                f"statistics is {self.statistics} and statistics_epsilon {self.statistics_epsilon}; clipped statistics "
                "cost an epsilon above 0, public ones none"
            )
        if self.statistics_epsilon is not None:
            check_epsilon(self.statistics_epsilon, "statistics_epsilon")
        if self.feedback is Feedback.RAW:
            raise ValueError("feedback is raw, which no epsilon covers; choose public or randomised, or mode literal")
        keep_probability(self.review_epsilon, 2)
        check_bound(self.bound)
        check_max_grad_norm(self.max_grad_norm)
        if self.gradient_epsilon is not None:
            self._rule(1)

    @property
    def uses_public(self) -> bool:  # type: ignore[override]  # a matter of its parameters
        """Whether statistics or feedback come from public records."""
        if self.mode is Mode.LITERAL:
            return False
        return self.statistics is Statistics.PUBLIC or self._follows(Feedback.PUBLIC)

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Standardise, clip, and add noise at the source; the released model standardises and clips, without noise."""
        literal = self.mode is Mode.LITERAL
        rows = records.x.reshape(len(records), -1)
        known = self._statistics(records, rng, public)
        bound = None if literal else self.bound
        shape = records.shape
        front = make_input_transform(known.shift.reshape(shape), known.scale.reshape(shape), shape=shape, bound=bound)
        source = Source(
            standardisation=known,
            epsilon=self.source_epsilon,
            bound=self.bound,
            label_epsilon=self.label_epsilon,
            classes=records.classes,
            mode=self.mode,
        )
        noised, labels = privatize(rows, records.y, source=source, rng=rng)
        assert labels is not None
        x = front.apply_to(records.x) if self.source_epsilon is None else noised.astype(np.float32).reshape(-1, *shape)
        facts = {"statistics": known.origin, "noise_scale": source.scale, "features": len(known)}
        return Prepared(Records(x, labels, records.classes, records.kind, records.name), facts, front)

    def gradient(self, lots: Lots) -> GradientRule | None:
        """Return the rule that noises each example, or None where only the source is noised."""
        return None if self.gradient_epsilon is None else self._rule(lots.epochs)

    def event(self, history: History) -> Any:
        """Return one pure event: statistics, and the smaller of source and gradients; literal: why there is none.

        The gradients' part is what is promised, not what this run spent: budgets that follow an accuracy would have
        been others in another run.
        """
        if self.mode is Mode.LITERAL:
            return Unaccounted("; ".join(self._gaps()))
        source = math.inf if self.source_epsilon is None else self.source_epsilon + (self.label_epsilon or 0.0)
        return PureDpEvent((self.statistics_epsilon or 0.0) + min(source, self.promised(history.lots)))

    def promised(self, lots: Lots) -> float:
        """Return what the gradients of a run can cost at most, in nats; infinity where they carry no noise."""
        if self.gradient_epsilon is None:
            return math.inf
        rule = self._rule(lots.epochs)
        most = rule.budgets.most(lots.epochs) + rule.per_review * (lots.epochs - 1)
        return min(most, rule.filter.total)

    def claimed(self, history: History) -> Guarantee:
        """Return what is promised in all; literal, epsilon_0, which is all that the paper states."""
        if self.mode is Mode.REPAIRED:
            promised: PureDpEvent = self.event(history)
            return Guarantee(promised.epsilon, 0.0, self.neighboring, self.unit, accountant="promised total")
        first = self.source_epsilon if self.gradient_epsilon is None else self.gradient_epsilon
        assert first is not None
        return Guarantee(first, 0.0, self.neighboring, self.unit, accountant="the paper's epsilon_0")

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        said = [
            "one person contributes one record, and the number of records is public",
            "each record takes part in one step per epoch, as shuffled lots of this engine do",
            "noise comes from a pseudo-random generator with a secret seed, as if it were exact; that on gradients is "
            "floating-point",
            "one trainer adds the noise; it is local only where each user adds his own",
        ]
        if self.source_epsilon is not None and self.label_epsilon is None:
            said.append("labels are public: only features are protected")
        if self.source_epsilon is not None and self.gradient_epsilon is not None:
            said.append("what is seen is the model and the noisy sums; who sees the noised records pays their epsilon")
        return tuple(said)

    def _follows(self, feedback: Feedback) -> bool:
        """Return whether the budgets react, and to this."""
        return self.gradient_epsilon is not None and self.feedback is feedback and self._rule(1).budgets.reacts

    def _statistics(self, records: Records, rng: np.random.Generator, public: Records | None) -> Standardisation:
        rows = records.x.reshape(len(records), -1)
        if self.mode is Mode.LITERAL:
            return raw_statistics([rows])
        if self.statistics is Statistics.PUBLIC:
            if public is None:
                raise ValueError("there are no public records to standardise by; give some, or take clipped statistics")
            return public_statistics(public.x.reshape(len(public), -1))
        assert self.statistics_epsilon is not None
        low, high = _public_range(records)
        (own,) = rng.spawn(1)
        return clipped_statistics([rows], low=low, high=high, epsilon=self.statistics_epsilon, rng=own)

    def _rule(self, epochs: int) -> NoisyExamples:
        assert self.gradient_epsilon is not None
        literal = self.mode is Mode.LITERAL
        return NoisyExamples(
            budgets=Budgets(
                first=self.gradient_epsilon,
                rule=self.budget_rule,
                alpha=self.alpha,
                beta=self.beta,
                target_accuracy=self.target_accuracy,
                least=self.least_epsilon,
            ),
            epochs=epochs,
            max_grad_norm=self.max_grad_norm,
            clips=not literal,
            feedback=Feedback.RAW if literal else self.feedback,
            review_epsilon=self.review_epsilon,
            filter=PureFilter(math.inf if literal or self.total_epsilon is None else self.total_epsilon),
        )

    def _gaps(self) -> tuple[str, ...]:
        """Return why the literal mode has no guarantee."""
        said = ["features are standardised by mean and deviation of the raw records, which no budget pays for"]
        if self.source_epsilon is not None:
            said.append(
                "features are not clipped, so one may be arbitrarily large and no noise covers it; each of d features "
                f"is noised for the whole epsilon {self.source_epsilon:g}, so even clipped they would cost d times that"
            )
            said.append("labels are not noised")
        if self.gradient_epsilon is not None:
            said.append(
                "gradients are not clipped, so their L1 sensitivity is unbounded; the budgets of all epochs add up, "
                f"and {self.gradient_epsilon:g} is the first one alone"
            )
            if self._rule(1).budgets.reacts:
                said.append("budgets follow the raw members' accuracy, which no budget pays for")
        return tuple(said)


def _public_range(records: Records) -> tuple[float, float]:
    """Return the public range of every feature.

    Raises:
        ValueError: If the records do not tell.
    """
    kind = records.kind
    if isinstance(kind, Image):
        return kind.low, kind.high
    if not kind.columns:
        raise ValueError("records have no public range to clip statistics to; name their columns, or use public ones")
    return 0.0, 1.0  # how tables are encoded
