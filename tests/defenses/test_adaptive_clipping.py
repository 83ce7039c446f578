"""Adaptive clipping as a scheme: who gets noise in a run, what that costs, and what is refused."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting import rdp
from scipy import stats
from torch import Tensor

from defenses.accounting import account, account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job, Sampler
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.store import model_of
from defenses.engine.training import train
from defenses.ensemble import Ensemble
from defenses.errors import TrainingError
from defenses.guarantee import Guarantee, Unaccounted
from defenses.mechanisms.clipping.noisy_quantile import NoisyQuantile
from defenses.modes import Mode
from defenses.nadam import Nadam
from defenses.recipe import Recipe
from defenses.records import BoolArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.adaptive_clipping import AdaptiveClipping
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import Tensors

LABELS = 3
LOTS = Lots(60, 30, 4)
WHOLE = Lots(60, 60, 4)  # no subsampling: quickly priced


def records(n: int = 60) -> Records:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return Records(x, rng.integers(0, LABELS, n), LABELS, Table((), "y", ()))


def job(scheme: AdaptiveClipping) -> Job:
    return Job(
        Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=LOTS, learning_rate=0.01), scheme, records()
    )


# Who gets noise


@dataclass
class Onlooker:
    """A probe whose one canary never comes; it keeps what the noise of every step was, and on how long a sum."""

    added: dict[Step, Tensor] = field(default_factory=dict)

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        return {name: Materialised(torch.ones_like(value)[None]) for name, value in parameters.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        return np.array([False])

    def read(self, reading: Reading) -> None:
        rest = [(reading.released[name] - value).flatten() for name, value in reading.sums.items()]
        self.added[reading.step] = torch.cat(rest)


def watched(scheme: AdaptiveClipping) -> tuple[Onlooker, Ensemble]:
    probe = Onlooker()
    return probe, train(job(scheme), np.ones((1, 60), bool), [1], device="cpu", probe=probe)


def test_literal_leaves_the_groups_that_are_not_chosen_without_noise() -> None:
    probe, _ = watched(AdaptiveClipping(mode=Mode.LITERAL, labels=LABELS, noise_multiplier=2.0))
    rounds = LOTS.steps_per_epoch
    assert len(probe.added) == LOTS.steps * LABELS
    for epoch in range(LOTS.epochs):
        for lot in range(rounds):
            noisy = [bool(probe.added[epoch, lot * LABELS + label].any()) for label in range(LABELS)]
            assert sum(noisy) == (LABELS if (epoch, lot) == (0, 0) else 1)


def test_repaired_leaves_no_step_without_noise() -> None:
    scheme = AdaptiveClipping(labels=LABELS, noise_multiplier=2.0, threshold_rate=0.0, max_grad_norm=0.5)
    probe, _ = watched(scheme)
    assert len(probe.added) == LOTS.steps
    drawn = torch.cat(list(probe.added.values())).numpy()
    assert stats.kstest(drawn / (0.5 * scheme.noises(LOTS)[0]), "norm").pvalue > 0.01


# What it costs


def test_a_step_is_priced_as_the_one_gaussian_that_it_is() -> None:
    scheme = AdaptiveClipping(labels=LABELS, gradient_noise=1.1, count_noise=2.0, score_noise=6.0)
    joint = (1.1**-2 + (2 * 2.0) ** -2 + 6.0**-2) ** -0.5
    assert scheme.joint_noise(LOTS) == pytest.approx(joint, rel=1e-12)
    found = account_run(scheme, History(LOTS), delta=1e-5)
    assert isinstance(found, Guarantee)
    one = dp_accounting.PoissonSampledDpEvent(0.5, dp_accounting.GaussianDpEvent(joint))
    expected = account(dp_accounting.SelfComposedDpEvent(one, LOTS.steps), delta=1e-5)
    assert isinstance(expected, Guarantee)
    assert found.epsilon == pytest.approx(expected.epsilon, rel=1e-9)
    # dp_accounting's own word for three Gaussians on one draw of the lot.
    three = [dp_accounting.GaussianDpEvent(deviation) for deviation in (1.1, 2 * 2.0, 6.0)]
    together = dp_accounting.PoissonSampledDpEvent(0.5, dp_accounting.ComposedDpEvent(three))
    by_renyi = [
        rdp.RdpAccountant().compose(event, LOTS.steps).get_epsilon(1e-5)
        for event in (together, scheme.event(History(Lots(60, 30, 4))).event)
    ]
    assert by_renyi[0] == pytest.approx(by_renyi[1], rel=1e-9)


def test_what_is_asked_for_is_what_it_costs_and_gradients_get_the_larger_noise() -> None:
    asked = AdaptiveClipping(labels=LABELS, noise_multiplier=1.5)
    gradients, counts, scores = asked.noises(LOTS)
    assert (counts, scores) == (7.5, 15.0)
    assert gradients == pytest.approx((1.5**-2 - (2 * counts) ** -2 - scores**-2) ** -0.5)
    same = AdaptiveClipping(labels=LABELS, gradient_noise=gradients, count_noise=counts, score_noise=scores)
    assert same.joint_noise(LOTS) == pytest.approx(1.5)
    sgd = account_run(DPSGD(noise_multiplier=1.5), History(LOTS), delta=1e-5)
    assert account_run(asked, History(LOTS), delta=1e-5).epsilon == sgd.epsilon  # type: ignore[union-attr]


def test_what_only_reads_released_answers_costs_nothing() -> None:
    plain = AdaptiveClipping(labels=LABELS, noise_multiplier=1.5)
    changed = replace(plain, threshold_rate=1.0, quantile=0.9, smoothing=None, label_smoothing=0.0, max_grad_norm=7.0)
    after = History(LOTS, state={"threshold": 123.0, "chosen": 2.0})
    assert changed.event(after) == plain.event(History(LOTS))


def test_a_target_epsilon_is_met_and_used() -> None:
    for epsilon in (0.5, 8.0):
        scheme = AdaptiveClipping(labels=LABELS, epsilon=epsilon)
        found = account_run(scheme, History(WHOLE), delta=1e-5)
        assert isinstance(found, Guarantee)
        assert 0.98 * epsilon < found.epsilon <= epsilon
        assert scheme.claimed(History(WHOLE)).epsilon == epsilon
        rule = scheme.gradient(WHOLE)
        assert isinstance(rule, NoisyQuantile)
        assert rule.gradient_noise > DPSGD(epsilon=epsilon).noise(WHOLE)


@pytest.mark.parametrize("given", [{"epsilon": 3.0}, {"noise_multiplier": 1.5}, {"gradient_noise": 1.5}])
def test_literal_is_unaccounted_and_says_why(given: dict[str, float]) -> None:
    scheme = AdaptiveClipping(mode=Mode.LITERAL, labels=LABELS, **given)
    found = account_run(scheme, History(LOTS), delta=1e-5)
    assert isinstance(found, Unaccounted)
    for why in ("without any noise", "raw gradient norms", "the choice of the label"):
        assert why in found.reason
    claimed = scheme.claimed(History(LOTS))
    if "epsilon" in given:
        assert claimed.epsilon == 3.0
    else:  # what DP-SGD of this noise costs
        sgd = account_run(DPSGD(noise_multiplier=1.5), History(LOTS), delta=1e-5)
        assert claimed.epsilon == sgd.epsilon  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "given",
    [{"noise_multiplier": 0.0}, {"gradient_noise": 1.0, "count_noise": 0.0}, {"gradient_noise": 1, "score_noise": 0.0}],
)
def test_an_answer_without_noise_is_worth_nothing(given: dict[str, float]) -> None:
    found = account_run(AdaptiveClipping(labels=LABELS, **given), History(LOTS), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert math.isinf(found.epsilon)


# How it trains


@pytest.mark.parametrize("mode", Mode)
def test_a_model_does_not_depend_on_who_is_beside_it_and_comes_back_from_bytes(mode: Mode) -> None:
    scheme = AdaptiveClipping(mode=mode, labels=LABELS, noise_multiplier=1.0)
    assert scheme.sampler is (Sampler.POISSON_BY_LABEL if mode is Mode.LITERAL else Sampler.POISSON)
    included = np.random.default_rng(0).random((3, 60)) < 0.7
    together = train(job(scheme), included, [1, 2, 3], device="cpu", width=3)
    alone = train(job(scheme), included[1:2], [2], device="cpu")
    for name, value in alone.parameters.items():
        torch.testing.assert_close(value[0], together.parameters[name][1], rtol=1e-4, atol=1e-5)
    json.dumps(dict(alone.traces[0].state), allow_nan=False)
    again = model_of(job(scheme), alone.to_bytes())
    assert again.traces == alone.traces


def test_it_descends_by_nadam_and_smooths_its_loss() -> None:
    scheme = AdaptiveClipping(labels=LABELS, noise_multiplier=1.0, smoothing=0.97, label_smoothing=0.2)
    assert scheme.update(job(scheme).recipe) == Nadam(0.97)
    weights = [watched(replace(scheme, label_smoothing=share))[1].parameters for share in (0.0, 0.2)]
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())


# What is refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give exactly one of the three"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "give exactly one of the three"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is -1.0"),
        ({"gradient_noise": math.nan}, "is nan"),
        ({"noise_multiplier": 1.0, "count_noise": -1.0}, "count_noise is -1.0"),
        ({"noise_multiplier": 1.0, "score_noise": math.inf}, "score_noise is inf"),
        ({"noise_multiplier": 1.0, "max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"noise_multiplier": 1.0, "quantile": 1.0}, "quantile is 1.0"),
        ({"noise_multiplier": 1.0, "threshold_rate": -0.2}, "threshold_rate is -0.2"),
        ({"noise_multiplier": 1.0, "smoothing": 1.0}, "smoothing is 1.0"),
        ({"noise_multiplier": 1.0, "label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"noise_multiplier": 1.0, "labels": 0}, "labels is 0"),
        ({"noise_multiplier": 1.0, "delta": 1.0}, "delta is 1.0"),
    ],
)
@pytest.mark.parametrize("mode", Mode)
def test_bad_parameters_are_named(given: dict[str, float], said: str, mode: Mode) -> None:
    with pytest.raises(ValueError, match=said):
        AdaptiveClipping(mode=mode, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [{"count_noise": 0.5}, {"score_noise": 0.0}, {"count_noise": 0.8, "score_noise": 1.2}]
)
def test_counts_and_scores_that_cost_more_than_the_step_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alone cost more than the noise multiplier 1 of a step allows; raise them"):
        AdaptiveClipping(noise_multiplier=1.0, **given)  # type: ignore[arg-type]
    # What is left then pays for the gradients.
    scheme = AdaptiveClipping(noise_multiplier=1.0, count_noise=0.8, score_noise=1.4)
    assert scheme.noises(LOTS)[0] == pytest.approx((1 - 0.625**2 - 1.4**-2) ** -0.5)


def test_side_noise_that_a_target_epsilon_cannot_pay_is_refused() -> None:
    scheme = AdaptiveClipping(labels=LABELS, epsilon=0.1, count_noise=1.0)
    with pytest.raises(ValueError, match="alone cost more"):
        scheme.gradient(WHOLE)


def test_records_with_other_labels_are_refused_before_training() -> None:
    with pytest.raises(TrainingError, match="labels is 10 but the records have 3 labels; set labels to 3"):
        train(job(AdaptiveClipping(noise_multiplier=1.0)), np.ones((1, 60), bool), [1], device="cpu")
