"""Local DP as a scheme: what is proved, what is not and why, and what the network and the released model see."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from test_local_gradients import GRADIENTS, LOTS, PUBLIC, RECORDS, table, trained

from defenses.accounting import account_run
from defenses.defense import History
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.mechanisms.local.budgets import BudgetRule
from defenses.mechanisms.local.gradient_rule import Feedback, NoisyExamples
from defenses.modes import Mode
from defenses.records import Column, Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.local_dp import LocalDP, Statistics

rng = np.random.default_rng(3)
BOTH = LocalDP(source_epsilon=8.0, gradient_epsilon=1.0)


def test_the_filter_ends_a_training_where_fewer_epochs_end() -> None:
    defense = replace(GRADIENTS, alpha=0.0, total_epsilon=2.5)
    long, readings = trained(defense, lots=Lots(60, 6, 6))
    short, _ = trained(replace(defense, total_epsilon=None), lots=Lots(60, 6, 2))
    assert len(readings) == 2 * 10
    assert long.traces[0].state["stopped"]
    assert long.traces[0].state["spent"] == 2.0
    _, on = trained(replace(defense, mode=Mode.LITERAL), lots=Lots(60, 6, 6))
    assert len(on) == 6 * 10  # the text has no filter
    for name, value in long.parameters.items():
        assert torch.equal(value, short.parameters[name])


def priced(defense: LocalDP, lots: Lots = LOTS) -> float:
    found = account_run(defense, History(lots), delta=0.0)
    assert isinstance(found, Guarantee)
    assert found.neighboring is Neighboring.REPLACE_ONE
    return found.epsilon


def test_what_is_proved_is_the_smaller_of_source_and_gradients() -> None:
    constant = replace(BOTH, alpha=0.0)
    assert priced(constant, Lots(60, 6, 4)) == 4.0  # the gradients of four epochs
    assert priced(constant, Lots(60, 6, 40)) == 8.0  # the source: what is computed from it is post-processing
    assert priced(replace(constant, label_epsilon=2.0), Lots(60, 6, 40)) == 10.0
    assert priced(replace(constant, total_epsilon=3.0), Lots(60, 6, 40)) == 3.0
    assert priced(LocalDP(source_epsilon=8.0)) == 8.0
    clipped = replace(constant, statistics=Statistics.CLIPPED, statistics_epsilon=0.5)
    assert priced(clipped, Lots(60, 6, 4)) == 4.5  # the statistics come on top of either
    assert priced(clipped, Lots(60, 6, 40)) == 8.5


def test_what_is_promised_is_the_worst_that_the_rule_can_spend() -> None:
    assert priced(replace(GRADIENTS, alpha=0.9)) == pytest.approx(1 + 3 * 2.0)
    assert priced(replace(GRADIENTS, budget_rule=BudgetRule.STEPPED, beta=0.5)) == pytest.approx(1 + 1.5 + 2 + 2.5)
    answered = replace(GRADIENTS, alpha=0.9, feedback=Feedback.RANDOMISED, review_epsilon=0.3)
    assert priced(answered) == pytest.approx(1 + 3 * 2.0 + 3 * 0.3)
    assert priced(replace(answered, alpha=0.0)) == 4.0  # nobody is asked
    for defense in (answered, replace(answered, total_epsilon=2.0)):
        state = trained(defense)[0].traces[0].state
        assert state["spent"] <= priced(defense)


def test_at_a_delta_no_more_is_proved_than_basic_composition() -> None:
    """Budgets were chosen by what was seen, so the optimal composition of fixed ones must not price them."""
    found = account_run(replace(GRADIENTS, alpha=0.0), History(Lots(60, 6, 40)), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.epsilon == pytest.approx(40.0, rel=1e-3)


@pytest.mark.parametrize("defense", [LocalDP(source_epsilon=1.0), GRADIENTS, BOTH])
def test_the_literal_mode_is_unaccounted_and_says_why(defense: LocalDP) -> None:
    literal = replace(defense, mode=Mode.LITERAL)
    found = account_run(literal, History(LOTS), delta=1e-5)
    assert isinstance(found, Unaccounted)
    assert "mean and deviation of the raw records" in found.reason
    assert ("features are not clipped" in found.reason) is (defense.source_epsilon is not None)
    for said in ("gradients are not clipped", "raw members' accuracy"):
        assert (said in found.reason) is (defense.gradient_epsilon is not None)
    claimed = literal.claimed(History(LOTS))
    assert (claimed.epsilon, claimed.delta, claimed.neighboring) == (1.0, 0.0, Neighboring.REPLACE_ONE)
    repaired, proved = defense.claimed(History(LOTS)), account_run(defense, History(LOTS), delta=0.0)
    assert isinstance(proved, Guarantee)
    assert repaired.epsilon == proved.epsilon  # what is promised in all, not the first budget
    assert not literal.uses_public


def test_literal_budgets_follow_the_members_and_repaired_ones_the_public() -> None:
    for mode, records in ((Mode.LITERAL, RECORDS), (Mode.REPAIRED, PUBLIC)):
        defense = replace(GRADIENTS, mode=mode, alpha=1.0, target_accuracy=1.0, gradient_epsilon=50.0)
        one = trained(defense, lots=Lots(60, 6, 1), rate=0.1)[0]
        two = trained(defense, lots=Lots(60, 6, 2), rate=0.1)[0].traces[0].state
        right = float((one.logits(records.x)[0].argmax(1) == records.y).mean())
        assert two["accuracy"][0] == pytest.approx(right, abs=0.011)
        assert two["budgets"][1] == pytest.approx(50.0 * (1 + two["accuracy"][0]))


def test_queries_are_standardised_and_clipped_but_not_noised() -> None:
    model = trained(LocalDP(source_epsilon=20.0, bound=1.5))[0]
    inner = model.one(0)[1]
    standard = np.clip((PUBLIC.x - PUBLIC.x.mean(0)) / PUBLIC.x.std(0), -1.5, 1.5)
    with torch.no_grad():
        expected = inner(torch.from_numpy(standard.astype(np.float32))).numpy()
    np.testing.assert_allclose(model.logits(PUBLIC.x)[0], expected, atol=1e-4)
    far = np.full((1, 4), 1e6, dtype=np.float32)
    np.testing.assert_array_equal(model.logits(far), model.logits(far * 2))
    literal = trained(LocalDP(source_epsilon=20.0, bound=1.5, mode=Mode.LITERAL))[0]
    assert (literal.logits(far) != literal.logits(far * 2)).any()


def test_the_literal_model_carries_the_raw_mean_and_the_repaired_one_nothing_of_it() -> None:
    other = replace(RECORDS, x=np.where(np.arange(60)[:, None] == 0, 500, RECORDS.x).astype(np.float32))
    for mode, moved in ((Mode.LITERAL, True), (Mode.REPAIRED, False)):
        shifts = [
            trained(replace(GRADIENTS, mode=mode), records=records)[0].parameters["0.shift"]
            for records in (RECORDS, other)
        ]
        assert bool((shifts[0] != shifts[1]).any()) is moved


def test_source_noise_and_labels_are_what_the_network_trains_on() -> None:
    many = table(4000, 5)
    defense = LocalDP(source_epsilon=8.0, label_epsilon=1.0, bound=2.0)
    prepared = defense.prepare(many, np.random.default_rng(0), public=PUBLIC)
    assert prepared.front is not None
    noise = prepared.records.x - prepared.front.apply_to(many.x)
    assert prepared.facts["noise_scale"] == 2 * 2.0 * 4 / 8.0
    assert stats.kstest(noise.flatten(), "laplace", args=(0.0, 2.0)).pvalue > 0.01
    kept = (prepared.records.y == many.y).mean()
    assert kept == pytest.approx(math.e / (math.e + 2), abs=0.03)
    gradients_alone = GRADIENTS.prepare(many, np.random.default_rng(0), public=PUBLIC)
    assert gradients_alone.front is not None
    np.testing.assert_array_equal(gradients_alone.records.x, gradients_alone.front.apply_to(many.x))
    np.testing.assert_array_equal(gradients_alone.records.y, many.y)


def test_clipped_statistics_need_no_public_records() -> None:
    x = rng.random((40, 1, 5, 5), dtype=np.float32)
    images = Records(x, rng.integers(0, 2, 40), 2, Image())
    columns = (Column("a", (), 0, 1, 0, 1), Column("b", (), 0, 1, 1, 1))
    rows = Records(x.reshape(40, 25)[:, :2], images.y, 2, Table(columns, "y", ()))
    defense = LocalDP(
        source_epsilon=50.0,
        gradient_epsilon=1.0,
        statistics=Statistics.CLIPPED,
        statistics_epsilon=1.0,
        feedback=Feedback.RANDOMISED,
    )
    assert not defense.uses_public
    for records in (images, rows):
        found, _ = trained(defense, records=records, lots=Lots(40, 10, 2))
        assert np.isfinite(found.logits(records.x)).all()
        assert found.shape == records.shape
        near = replace(defense, statistics_epsilon=1e6).prepare(records, rng)
        assert near.front is not None
        np.testing.assert_allclose(near.front.shift, records.x.mean(0), atol=1e-3)
    with pytest.raises(ValueError, match="no public range"):
        defense.prepare(RECORDS, rng)


def test_public_records_are_wanted_only_for_what_is_taken_from_them() -> None:
    clipped = {"statistics": Statistics.CLIPPED, "statistics_epsilon": 1.0}
    assert LocalDP(source_epsilon=1.0).uses_public
    assert not LocalDP(source_epsilon=1.0, **clipped).uses_public  # type: ignore[arg-type]
    assert LocalDP(gradient_epsilon=1.0, **clipped).uses_public  # type: ignore[arg-type]
    assert not LocalDP(gradient_epsilon=1.0, alpha=0.0, **clipped).uses_public  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no public records to standardise by"):
        GRADIENTS.prepare(RECORDS, rng)


def test_what_must_hold_is_said_in_words() -> None:
    assert any("local only where each user adds his own" in said for said in GRADIENTS.assumptions())
    assert not any("labels are public" in said for said in GRADIENTS.assumptions())
    assert any("labels are public" in said for said in BOTH.assumptions())
    assert not any("labels are public" in said for said in replace(BOTH, label_epsilon=1.0).assumptions())


def test_the_rule_is_the_same_for_every_lot() -> None:
    rule = BOTH.gradient(LOTS)
    assert isinstance(rule, NoisyExamples)
    assert rule.clips
    assert LocalDP(source_epsilon=1.0).gradient(LOTS) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither source_epsilon nor gradient_epsilon"),
        ({"source_epsilon": -1.0}, "source_epsilon is -1.0"),
        ({"gradient_epsilon": 0.0}, "gradient_epsilon is 0.0"),
        ({"gradient_epsilon": math.inf}, "gradient_epsilon is inf"),
        ({"source_epsilon": 1.0, "label_epsilon": -2.0}, "label_epsilon is -2.0"),
        ({"source_epsilon": 1.0, "bound": -3.0}, "bound is -3.0"),
        ({"source_epsilon": 1.0, "statistics": Statistics.CLIPPED}, "clipped statistics cost an epsilon"),
        ({"source_epsilon": 1.0, "statistics_epsilon": 1.0}, "clipped statistics cost an epsilon"),
        ({"gradient_epsilon": 1.0, "max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"gradient_epsilon": 1.0, "total_epsilon": 0.5}, "above the promised total 0.5"),
        ({"gradient_epsilon": 1.0, "feedback": Feedback.RAW}, "which no epsilon covers"),
        ({"gradient_epsilon": 1.0, "review_epsilon": 0.0}, "above 0"),
        ({"gradient_epsilon": 0.005}, "floor of the budgets is 0.01"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalDP(**options)  # type: ignore[arg-type]
