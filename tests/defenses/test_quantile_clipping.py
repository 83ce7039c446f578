"""The rules of adaptive clipping: what follows the quantile, what gets noise, and what one record moves."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from defenses.architectures import Architecture
from defenses.engine.per_example import PerExampleGradients
from defenses.gradients import LotRule
from defenses.mechanisms.clipping.noisy_quantile import NoisyQuantile
from defenses.mechanisms.clipping.raw_quantile import RawQuantile
from defenses.randomness import Noise
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.adaptive_clipping import AdaptiveClipping
from defenses.updates import Tensors

LABELS = 3
LOTS = Lots(60, 30, 4)
QUIET = NoisyQuantile(LABELS, 100.0, 1.0, 0.5, 0.2, 0.0, 0.0, 0.0)


def records(n: int = 60) -> Records:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return Records(x, rng.integers(0, LABELS, n), LABELS, Table((), "y", ()))


def noise(*names: int) -> Noise:
    return Noise(7, "noise", *names, device=torch.device("cpu"))


def followed(rule: NoisyQuantile, norms: Tensor, y: Tensor, steps: int) -> list[Tensors]:
    """Return the states of a rule that sees the same lot at every step."""
    mask, state, states = torch.ones(len(y), dtype=torch.bool), rule.initial(), []
    for step in range(steps):
        weights, statistics = rule.factors(norms[:, None], y, mask, state)
        torch.testing.assert_close(weights[:, 0] * norms, norms.clamp(max=float(state["threshold"])))
        _, state = rule.release({"a": torch.zeros(2)}, statistics.sum(0), state, noise(step))
        states.append(state)
    return states


# What follows the quantile


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("first", [0.01, 300.0])
def test_without_noise_the_threshold_goes_to_the_quantile_of_the_smallest_group(quantile: float, first: float) -> None:
    rng = np.random.default_rng(0)
    y = torch.arange(300) % LABELS
    typical = torch.tensor([4.0, 1.5, 9.0])  # of each label; the second is the smallest
    norms = torch.from_numpy(rng.lognormal(sigma=0.5, size=300)).float() * typical[y]
    state = followed(replace(QUIET, quantile=quantile, initial_norm=first), norms, y, 300)[-1]
    assert int(state["chosen"]) == 1
    below = float((norms[y == 1] <= state["threshold"]).float().mean())
    assert below == pytest.approx(quantile, abs=0.02)


def test_with_noise_it_stays_near_and_rare_labels_are_not_mistaken_for_small_ones() -> None:
    rng = np.random.default_rng(1)
    y = torch.arange(150) // 50 % 2  # 100 of label 0, 50 of label 1, where 100 are expected of each
    norms = torch.from_numpy(rng.lognormal(sigma=0.5, size=150)).float()
    for typical, smallest in (([1.0, 2.0], 0), ([2.0, 1.0], 1)):
        scaled = norms * torch.tensor(typical)[y]
        rule = NoisyQuantile(2, 100.0, 8.0, 0.5, 0.2, 1.0, 5.0, 5.0)
        states = followed(rule, scaled, y, 300)[100:]
        assert np.mean([float(state["chosen"]) == smallest for state in states]) > 0.95
        # Counts from 0 to 1, not centred, would take records that are missing for ones above the threshold.
        middle = float(scaled[y == smallest].median())
        assert np.exp(np.mean([math.log(state["threshold"]) for state in states])) == pytest.approx(middle, rel=0.1)


def test_a_label_that_hardly_occurs_is_not_chosen() -> None:
    rule = replace(QUIET, score_noise=0.5)
    lengths = torch.tensor([[40.0, 0.1, 60.0], [60.0, 0.4, 40.0]])  # means 0.4, 0.2 of half a record, 0.6
    assert int(rule.smallest(lengths)) == 0
    assert int(rule.smallest(-lengths)) == 0  # nobody at all: any choice will do, and none is NaN


def test_a_step_moves_the_threshold_by_no_more_than_its_rate() -> None:
    rule = replace(QUIET, count_noise=1e6, score_noise=1e6)
    states = followed(rule, torch.ones(6), torch.arange(6) % LABELS, 50)
    moves = np.diff([math.log(state["threshold"]) for state in states])
    assert np.abs(moves).max() <= 0.2 * 0.5 + 1e-6


# What gets noise


def test_noise_has_the_deviations_that_are_priced() -> None:
    rule = NoisyQuantile(4000, 10.0, 2.5, 0.5, 0.2, 1.5, 3.0, 7.0)
    zeros, nothing = {"a": torch.zeros(100, 50), "b": torch.zeros(3000)}, torch.zeros(12000)
    released, _ = rule.release(zeros, nothing, rule.initial(), noise(1))
    gradients = torch.cat([value.flatten() for value in released.values()]).numpy() / 2.5
    counts, scores = (found.flatten().numpy() for found in rule.answers(nothing, noise(2)))
    for drawn, deviation in ((gradients, 1.5), (counts, 3.0), (scores, 7.0)):
        assert stats.kstest(drawn / deviation, "norm").pvalue > 0.01
        assert stats.kstest(drawn / (1.1 * deviation), "norm").pvalue < 0.01  # or the test could not tell
    assert abs(np.corrcoef(counts, scores[:4000])[0, 1]) < 0.05


def test_noise_on_the_sum_follows_the_threshold_and_is_fresh_for_the_answers() -> None:
    rule = NoisyQuantile(2, 10.0, 1.0, 0.5, 0.2, 1.5, 3.0, 7.0)
    sums, nothing = {"a": torch.zeros(8000)}, torch.zeros(6)
    once, state = rule.release(sums, nothing, rule.initial(), noise(1))
    twice, _ = rule.release(sums, nothing, rule.initial() | {"threshold": torch.tensor(2.0)}, noise(1))
    torch.testing.assert_close(2 * once["a"], twice["a"])
    drawn = noise(1)
    first, second = drawn.normal(sums)["a"], drawn.normal({"answers": nothing})["answers"]
    torch.testing.assert_close(once["a"], 1.5 * first)
    torch.testing.assert_close(state["lengths"].flatten(), 7.0 * second[2:])


def test_the_literal_choice_is_the_smallest_mean_clipped_norm_of_the_lot_before() -> None:
    rule = RawQuantile(LABELS, 1.0, 0.5, 2.0)
    assert isinstance(rule, LotRule)
    rng, state = np.random.default_rng(4), rule.initial()
    sums, previous = {"a": torch.zeros(4000)}, None
    for lot in range(6):
        means = []
        for label in range(LABELS):
            norms = torch.from_numpy(rng.lognormal(size=(7, 1)) * rng.uniform(0.5, 4))
            mask, y = torch.arange(7) < 5, torch.full((7,), label)
            state = rule.prepare_step(norms, y, mask, state, noise(lot, label))
            median = float(norms[:5].median())
            weights, _ = rule.factors(norms, y, mask, state)
            expected = np.where(np.arange(7) < 5, np.minimum(norms[:, 0].numpy(), median), 0)
            np.testing.assert_allclose((weights * norms)[:, 0].numpy(), expected, rtol=1e-6)
            means.append(expected[:5].mean())
            released, state = rule.release(sums, torch.zeros(0), state, noise(lot, label))
            if previous is None or label == int(np.argmin(previous)):
                assert stats.kstest(released["a"].numpy() / (2.0 * median), "norm").pvalue > 0.001
            else:
                assert not released["a"].any()
        previous = means


def test_an_empty_group_keeps_what_was_known_of_it() -> None:
    rule, nobody = RawQuantile(2, 1.0, 0.5, 2.0), torch.zeros(3, dtype=torch.bool)
    state = rule.initial()
    for norm in (2.0, 1.0, None, 9.0, 5.0):  # labels 0, 1, 0, 1, 0
        norms = torch.full((3, 1), math.nan if norm is None else norm)
        state = rule.prepare_step(norms, torch.zeros(3), nobody if norm is None else ~nobody, state, noise(0))
    assert state["scores"].tolist() == [5.0, 9.0]
    assert float(state["chosen"]) == 0  # of the scores 2 (kept) and 9


# What one record moves


@dataclass(frozen=True)
class Uncentred(NoisyQuantile):
    """A planted fault: indicators of 0 and 1."""

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        weights, statistics = super().factors(norms, y, mask, state)
        own = statistics[:, : self.labels] != 0
        return weights, torch.cat([statistics[:, : self.labels] + 0.5 * own, statistics[:, self.labels :]], dim=1)


def moved_by_one_record(rule: NoisyQuantile) -> list[float]:
    """Return, for each record of a lot, how far leaving it out moves all noisy answers, in their noises together."""
    module = Architecture("mlp", {"hidden": [4]}).build((6,), LABELS, seed=1, dtype=torch.float64)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    pool = records(8)
    x, y = torch.from_numpy(pool.x).double(), torch.from_numpy(pool.y)
    x[0] *= 1e6  # a huge gradient
    x[1] *= 0.01
    x[2] = math.inf  # one that is not finite at all
    examples, state = PerExampleGradients(module, rule, (6,)), rule.initial()

    def answer(mask: Tensor) -> Tensor:
        sums, statistics, _ = examples.sums(parameters, x, y, mask, state, careful=True)
        parts = [value.flatten() / (rule.gradient_noise * rule.initial_norm) for value in sums.values()]
        counts, scores = statistics[:LABELS] / rule.count_noise, statistics[LABELS:] / rule.score_noise
        return torch.cat([*parts, counts, scores])

    everyone = torch.ones(8, dtype=torch.bool)
    found = []
    for left in range(8):
        without = everyone.clone()
        without[left] = False
        found.append(float((answer(everyone) - answer(without)).norm()))
    return found


@pytest.mark.parametrize("threshold", [0.2, 1.0, 5.0])
def test_one_record_moves_all_answers_by_no_more_than_is_priced(threshold: float) -> None:
    scheme = AdaptiveClipping(
        labels=LABELS, gradient_noise=1.1, count_noise=0.7, score_noise=1.9, max_grad_norm=threshold
    )
    rule = scheme.gradient(LOTS)
    assert isinstance(rule, NoisyQuantile)
    most = 1 / scheme.joint_noise(LOTS)
    found = moved_by_one_record(rule)
    assert max(found) <= most * (1 + 1e-7)  # thresholds are kept in float32
    assert max(found) == pytest.approx(most)  # the record with the huge gradient takes all of it


def test_indicators_that_are_not_centred_would_cost_more() -> None:
    rule = NoisyQuantile(LABELS, 10.0, 5.0, 0.5, 0.2, 1.1, 0.7, 1.9)
    most = math.hypot(1 / 1.1, 1 / (2 * 0.7), 1 / 1.9)
    assert max(moved_by_one_record(rule)) <= most * (1 + 1e-7)
    assert max(moved_by_one_record(Uncentred(**vars(rule)))) > most * 1.01
