"""The budgets of both rules, and a filter that no schedule gets past."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from defenses.gradients import Measures
from defenses.mechanisms.local.budgets import BudgetRule, Budgets, PureFilter
from defenses.mechanisms.local.gradient_rule import Feedback, NoisyExamples
from defenses.randomness import Noise
from defenses.updates import Tensors

HERE = torch.device("cpu")


def test_the_rules_are_those_of_the_paper_and_contradict_each_other() -> None:
    scaled = Budgets(first=2.0, alpha=0.5, target_accuracy=0.8)
    stepped = Budgets(first=2.0, rule=BudgetRule.STEPPED, beta=0.5, target_accuracy=0.8)
    for accuracy in (0.0, 0.3, 0.8, 1.0):
        assert scaled.after(7.0, accuracy) == pytest.approx(2.0 * (1 + 0.5 * accuracy / 0.8))
        assert stepped.after(7.0, accuracy) == pytest.approx(7.0 + 0.5 * (0.8 - accuracy) / 0.8)
    assert scaled.after(2.0, 0.9) > scaled.after(2.0, 0.4)
    assert stepped.after(2.0, 0.9) < stepped.after(2.0, 0.4)


def test_neither_rule_passes_its_floor() -> None:
    """Above the target the second rule takes away, epoch after epoch; without a floor it ends below 0."""
    budgets = Budgets(first=0.3, rule=BudgetRule.STEPPED, beta=1.0, target_accuracy=0.5, least=0.02)
    current = 0.3
    for _ in range(20):
        current = budgets.after(current, 1.0)
        assert current >= 0.02
    assert current == 0.02
    assert Budgets(first=0.3, alpha=-5.0, target_accuracy=0.5, least=0.02).after(0.3, 1.0) == 0.02


@pytest.mark.parametrize(
    "budgets",
    [
        Budgets(first=1.0, alpha=0.7, target_accuracy=0.6),
        Budgets(first=1.0, alpha=-3.0, target_accuracy=0.6),
        Budgets(first=1.0, rule=BudgetRule.STEPPED, beta=0.4, target_accuracy=0.6),
        Budgets(first=1.0, rule=BudgetRule.STEPPED, beta=0.0),
    ],
)
def test_the_most_that_a_rule_can_spend_is_what_the_worst_accuracies_lead_to(budgets: Budgets) -> None:
    for epochs in (1, 2, 5):
        totals = []
        for accuracies in itertools.product((0.0, 0.35, 0.6, 1.0), repeat=epochs - 1):
            spent = [budgets.first]
            for accuracy in accuracies:
                spent.append(budgets.after(spent[-1], accuracy))
            totals.append(sum(spent))
        assert budgets.most(epochs) == pytest.approx(max(totals))


def test_no_adaptive_schedule_gets_past_the_filter() -> None:
    """Whatever is asked next may depend on everything before; exact sums, so that rounding is no excuse."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        total = float(rng.choice([0.3, 1.0, rng.uniform(0.05, 20)]))
        guard, spent, taken = PureFilter(total), 0.0, []
        for _ in range(60):
            greedy = (total - spent) * rng.choice([0.5, 1.0, 1.0 + 1e-15, 1.5])
            asked = float(max(rng.choice([greedy, rng.exponential(0.2), 0.1]), 0.0))
            if guard.admits(spent, asked):
                spent += asked
                taken.append(asked)
        assert spent <= total
        assert math.fsum(taken) <= total * (1 + 1e-14)


def accuracy_of(share: float, count: int = 50) -> Tensor:
    return torch.arange(count) < round(share * count)


def run(rule: NoisyExamples, accuracies: list[float], seed: int = 0) -> tuple[Tensors, int]:
    """Take epochs as the engine does, and return the state and how many were taken."""
    state = rule.initial()
    for epoch, share in enumerate(accuracies):
        assert torch.equal(state["budgets"][epoch], state["epsilon"])  # the budget of the epoch that is taken now
        right = accuracy_of(share)
        measures = Measures(epoch + 1, lambda right=right: right, lambda right=right: right)  # type: ignore[misc]
        state = rule.review(state, measures, Noise(seed, "review", epoch, device=HERE))
        if rule.done(state):
            return state, epoch + 1
    return state, len(accuracies)


@pytest.mark.parametrize("feedback", list(Feedback))
def test_no_training_spends_more_than_it_promised(feedback: Feedback) -> None:
    """Over random rules and accuracies: the sum stays within, and a run ends only where the next epoch did not fit."""
    rng = np.random.default_rng(1)
    stopped = 0
    for trial in range(1000 if feedback is Feedback.PUBLIC else 300):
        first, epochs = float(rng.uniform(0.05, 2.0)), int(rng.integers(1, 12))
        budgets = Budgets(
            first=first,
            rule=rng.choice(list(BudgetRule)),
            alpha=float(rng.normal(0, 2)),
            beta=float(rng.exponential(1.0)),
            target_accuracy=float(rng.uniform(0.3, 1.0)),
            least=float(rng.uniform(0.01, 0.05)),
        )
        total = first * float(rng.uniform(1.0, 8.0))
        rule = NoisyExamples(
            budgets=budgets, epochs=epochs, feedback=feedback, review_epsilon=0.2, filter=PureFilter(total)
        )
        shares = rng.random(epochs).tolist()
        state, taken = run(rule, shares, seed=trial)
        paid = state["budgets"]
        assert int((paid > 0).sum()) == taken
        spent = math.fsum(paid.tolist())
        assert spent <= total
        assert float(state["spent"]) <= total
        assert spent <= budgets.most(epochs) * (1 + 1e-12)
        looks = (float(state["spent"]) - spent) / 0.2 if feedback is Feedback.RANDOMISED else 0.0
        assert looks == pytest.approx(round(looks), abs=1e-6)
        assert taken - 1 <= round(looks) <= taken or feedback is not Feedback.RANDOMISED
        if taken < epochs:
            stopped += 1
            asked = budgets.after(float(paid[taken - 1]), round(shares[taken - 1] * 50) / 50)
            assert spent + asked > total - 1e-9 or feedback is Feedback.RANDOMISED
    assert stopped > 50


def test_a_look_that_no_epoch_can_follow_is_not_taken() -> None:
    """Members' answers cost: with no room for the least budget after them, nobody is asked."""
    budgets = Budgets(first=1.0, alpha=0.5, least=0.1)
    for total, asked in ((1.25, 0), (1.31, 1)):
        rule = NoisyExamples(
            budgets=budgets,
            epochs=5,
            feedback=Feedback.RANDOMISED,
            review_epsilon=0.2,
            filter=PureFilter(total),
        )
        looked = 0

        def look() -> Tensor:
            nonlocal looked
            looked += 1
            return accuracy_of(1.0)

        state = rule.review(rule.initial(), Measures(1, look, look), Noise(0, device=HERE))
        assert looked == asked
        assert rule.done(state)
        assert float(state["spent"]) == pytest.approx(1.0 + 0.2 * asked)


def test_the_last_epoch_is_not_followed_by_a_look() -> None:
    rule = NoisyExamples(budgets=Budgets(first=1.0, alpha=0.5), epochs=1, feedback=Feedback.RAW)

    def look() -> Tensor:
        raise AssertionError("nothing is chosen any more")

    state = rule.initial()
    assert rule.review(state, Measures(1, look, look), Noise(0, device=HERE)) is state


def test_constant_budgets_look_at_nothing() -> None:
    def look() -> Tensor:
        raise AssertionError("a constant budget needs no accuracy")

    for budgets in (Budgets(first=1.0), Budgets(first=1.0, rule=BudgetRule.STEPPED, alpha=3.0)):
        rule = NoisyExamples(budgets=budgets, epochs=4, feedback=Feedback.RANDOMISED, review_epsilon=0.5)
        state = rule.review(rule.initial(), Measures(1, look, look), Noise(0, device=HERE))
        assert float(state["spent"]) == 2.0


def test_members_answers_are_randomised_and_their_share_comes_back_without_bias() -> None:
    rule = NoisyExamples(
        budgets=Budgets(first=1.0, alpha=1.0, target_accuracy=1.0),
        epochs=2,
        feedback=Feedback.RANDOMISED,
        review_epsilon=1.0,
    )
    right = accuracy_of(0.7, 2000)
    found = []
    for seed in range(200):
        state = rule.review(rule.initial(), Measures(1, lambda: right, lambda: right), Noise(seed, device=HERE))
        found.append(float(state["accuracy"][0]))
        assert float(state["epsilon"]) == pytest.approx(1 + found[-1])
    keep = math.e / (1 + math.e)
    expected = math.sqrt(keep * (1 - keep) / 2000) / (2 * keep - 1)
    assert np.mean(found) == pytest.approx(0.7, abs=4 * expected / math.sqrt(200))
    assert np.std(found) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": -1.0}, "epsilon of the first epoch is -1.0"),
        ({"alpha": math.inf}, "alpha is inf"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"target_accuracy": 0.0}, "target_accuracy is 0.0"),
        ({"target_accuracy": 1.1}, "target_accuracy is 1.1"),
        ({"least": 0.0}, "floor of the budgets is 0.0"),
        ({"least": 1.5}, "at most the first"),
    ],
)
def test_budgets_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budgets(**({"first": 1.0} | options))  # type: ignore[arg-type]


def test_a_filter_that_admits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="promised total is 0"):
        PureFilter(0.0)
    with pytest.raises(ValueError, match=r"first epoch costs 1.0, which is above the promised total 0.5"):
        NoisyExamples(budgets=Budgets(first=1.0), epochs=3, filter=PureFilter(0.5))
