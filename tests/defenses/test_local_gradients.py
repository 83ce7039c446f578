"""Noise on gradients: what is added to a lot, and what one record can move, in the engine and at an owner's."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from defenses.architectures import Architecture
from defenses.defense import Defense
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.training import Job, train
from defenses.ensemble import Ensemble
from defenses.mechanisms.local.budgets import BudgetRule
from defenses.mechanisms.local.noisy_gradients import privatize_gradients
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import BoolArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.local_dp import LocalDP
from defenses.updates import Tensors

rng = np.random.default_rng(3)
LOTS = Lots(60, 6, 4)


def table(n: int, seed: int) -> Records:
    draws = np.random.default_rng(seed)
    y = draws.integers(0, 3, n)
    x = draws.normal(5.0, 2.0, size=(n, 4)) + y[:, None]
    return Records(x.astype(np.float32), y, 3, Table((), "y", ()))


RECORDS, PUBLIC = table(60, 0), table(200, 1)
GRADIENTS = LocalDP(gradient_epsilon=1.0)


class Watching:
    """A probe that adds nothing and keeps every step."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        return {name: Materialised(torch.zeros(1, *value.shape)) for name, value in parameters.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        return np.zeros(1, dtype=np.bool_)

    def read(self, reading: Reading) -> None:
        self.readings.append(reading)


def trained(
    defense: Defense, *, lots: Lots = LOTS, records: Records = RECORDS, rate: float = 0.01, seed: int = 1
) -> tuple[Ensemble, list[Reading]]:
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=lots, learning_rate=rate)
    job = Job(recipe, defense, records, public=PUBLIC if records.shape == PUBLIC.shape else None)
    probe = Watching() if defense.gradient(lots) else None
    model = train(job, np.ones((1, len(records)), bool), [seed], device="cpu", probe=probe)
    return model, probe.readings if probe else []


def flat(tensors: Tensors) -> npt.NDArray[np.float64]:
    return torch.cat([value.flatten() for value in tensors.values()]).double().numpy()


def added(readings: list[Reading]) -> npt.NDArray[np.float64]:
    return np.stack([flat(reading.released) - flat(reading.sums) for reading in readings])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("rule", list(BudgetRule))
def test_each_gradient_has_laplace_noise_at_the_budget_of_its_epoch(mode: Mode, rule: BudgetRule) -> None:
    """Lots of one: what a local adversary sees of each record."""
    defense = replace(GRADIENTS, mode=mode, budget_rule=rule, max_grad_norm=0.5, alpha=2.0, beta=2.0)
    model, readings = trained(defense, lots=Lots(60, 1, 4))
    budgets = np.array(model.traces[0].state["budgets"])
    assert len(set(budgets)) > 2  # or the test shows nothing about the schedule
    scales = np.array([2 * 0.5 / budgets[reading.step[0]] for reading in readings])
    assert len(readings) == 4 * 60
    assert stats.kstest((added(readings) / scales[:, None]).flatten(), "laplace").pvalue > 0.01


def test_a_lot_has_the_noises_of_all_its_examples_as_owners_draw_them() -> None:
    defense = replace(GRADIENTS, alpha=0.0, max_grad_norm=0.5)
    _, readings = trained(defense, lots=Lots(60, 12, 40))
    noise = np.concatenate(
        [privatize_gradients(np.zeros((12, 15)), epsilon=1.0, max_grad_norm=0.5) for _ in range(200)]
    )
    by_hand = noise.reshape(200, 12, 15).sum(1).flatten()
    assert stats.ks_2samp(added(readings).flatten(), by_hand).pvalue > 0.01


def test_a_last_lot_that_is_shorter_has_less_noise() -> None:
    _, readings = trained(replace(GRADIENTS, alpha=0.0), lots=Lots(60, 50, 200), rate=1e-6)
    noise = added(readings)
    sizes = np.where([reading.step[1] == 0 for reading in readings], 50, 10)
    for size in (50, 10):
        spread = noise[sizes == size].std()
        assert spread == pytest.approx(2 * math.sqrt(2 * size), rel=0.05)


def neighbours() -> list[Records]:
    """Data sets that differ in the first record, by extreme values of features and label."""
    found = []
    for value in (-1e6, 0.0, 5.0, 1e6):
        for label in range(3):
            x, y = RECORDS.x[:5].copy(), RECORDS.y[:5].copy()
            x[0], y[0] = value, label
            found.append(Records(x, y, 3, RECORDS.kind))
    return found


@pytest.mark.parametrize("mode", list(Mode))
def test_one_record_moves_a_sum_by_twice_the_clipping_norm_at_most_unless_literal(mode: Mode) -> None:
    """Brute force: the first step's noiseless sum over every pair of neighbours, in L1."""
    defense = replace(GRADIENTS, mode=mode, max_grad_norm=0.5, bound=1e6)
    sums = []
    for records in neighbours():
        _, readings = trained(defense, lots=Lots(5, 5, 1), records=records, rate=1e-9)
        sums.append(flat(readings[0].sums))
    apart = np.abs(np.array(sums)[:, None] - np.array(sums)[None]).sum(-1).max()
    if mode is Mode.REPAIRED:
        assert apart == pytest.approx(2 * 0.5, rel=1e-3)
    else:
        assert np.abs(sums).sum(1).max() > 5 * 0.5  # more than five clipped gradients can make up


def test_an_owners_gradients_are_clipped_and_noised_one_by_one() -> None:
    gradients = np.array([[3.0, -1.0], [0.1, 0.1], [np.inf, 1.0]])
    expected = np.array([[0.75, -0.25], [0.1, 0.1], [0.0, 0.0]])
    near = privatize_gradients(gradients, epsilon=1e9, max_grad_norm=1.0)
    np.testing.assert_allclose(near, expected, atol=1e-4)
    noised = privatize_gradients(np.tile(gradients[0], (4000, 1)), epsilon=0.5, max_grad_norm=1.0)
    assert stats.kstest((noised - expected[0]).flatten(), "laplace", args=(0.0, 4.0)).pvalue > 0.01
    with pytest.raises(ValueError, match="epsilon of the gradients is -1"):
        privatize_gradients(gradients, epsilon=-1.0, max_grad_norm=1.0)
    with pytest.raises(ValueError, match="max_grad_norm is 0"):
        privatize_gradients(gradients, epsilon=1.0, max_grad_norm=0.0)


def test_rounding_never_lengthens_a_gradient() -> None:
    gradients = rng.normal(size=(200, 50))
    whole = privatize_gradients(gradients, epsilon=1e12, max_grad_norm=1.0)
    assert (np.abs(whole).sum(1) <= 1.0).all()
