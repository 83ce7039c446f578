"""Gradient canaries under a clipping threshold that moves: correct, faulty and literal rules."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from torch import Tensor

from auditor.white_box.prior_aware import audit_reconstruction
from auditor.white_box.step_audit import WhiteBoxOptions, audit_steps, observe_steps
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job
from defenses.engine.training import train
from defenses.gradients import GradientRule
from defenses.mechanisms.clipping.noisy_quantile import NoisyQuantile
from defenses.modes import Mode
from defenses.randomness import Noise
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.adaptive_clipping import AdaptiveClipping
from defenses.updates import Tensors

DELTA = 1e-5
LOTS = Lots(800, 100, 5)  # in smaller lots the noise on the counts drowns them
MOVING = AdaptiveClipping(labels=4, noise_multiplier=2.0, max_grad_norm=3.0, threshold_rate=0.5)


def moving_job(scheme: AdaptiveClipping) -> Job:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 20)).astype(np.float32)
    records = Records(x, rng.integers(0, 4, 800), 4, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [64]}), lots=LOTS, learning_rate=0.005)
    return Job(recipe, scheme, records)


def proved_of(scheme: AdaptiveClipping) -> float:
    found = account_run(replace(scheme, mode=Mode.REPAIRED), History(LOTS), delta=DELTA)
    return found.epsilon  # type: ignore[union-attr]


@dataclass(frozen=True)
class Faulty(NoisyQuantile):
    """Adds less noise than it says, or noise for the threshold that it began with, or clips at twice the threshold."""

    less: float = 1.0
    stuck: bool = False
    loose: float = 1.0

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        return super().factors(norms / self.loose, y, mask, state)

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        released, after = super().release(sums, statistic_sums, state, noise)
        share = self.less * (self.initial_norm / float(state["threshold"]) if self.stuck else 1.0)
        return {name: value + share * (released[name] - value) for name, value in sums.items()}, after


@dataclass(frozen=True, kw_only=True)
class FaultyClipping(AdaptiveClipping):
    less: float = 1.0
    stuck: bool = False
    loose: float = 1.0

    def gradient(self, lots: Lots) -> GradientRule:
        rule = super().gradient(lots)
        assert isinstance(rule, NoisyQuantile)
        return Faulty(**vars(rule), less=self.less, stuck=self.stuck, loose=self.loose)


@pytest.mark.parametrize("start", [30.0, 0.02], ids=["sinking", "rising"])
def test_a_threshold_that_moves_is_followed(start: float) -> None:
    """From far above or below the norms it goes to them; observations stay in units of the one in force."""
    scheme = replace(MOVING, max_grad_norm=start)
    job = moving_job(scheme)
    seen = observe_steps(job, seed=1, watch=WhiteBoxOptions(100))
    noise = scheme.noises(LOTS)[0]
    end = train(job, np.ones((1, 800), dtype=np.bool_), [1], device="cpu", width=1).traces[0].state["threshold"]
    assert end < start / 2 if start == 30.0 else end > 2 * start  # or nothing would be tested here
    late = seen.present[-10:], seen.values[-10:]
    assert late[1][~late[0]].std() == pytest.approx(noise, rel=0.1)
    assert late[1][late[0]].mean() == pytest.approx(1.0, abs=0.3)
    found = audit_steps(job, seed=1, delta=DELTA, watch=WhiteBoxOptions(200))
    assert 0.75 * proved_of(scheme) < found.gaussian.lower < proved_of(scheme)


@pytest.mark.parametrize(
    ("scheme", "seen"),
    [
        (FaultyClipping(**vars(MOVING), less=0.5), True),
        (FaultyClipping(**vars(MOVING), loose=2.0), True),
        (FaultyClipping(**{**vars(MOVING), "max_grad_norm": 0.02}, stuck=True), True),
        (replace(MOVING, mode=Mode.LITERAL), True),
        (FaultyClipping(**vars(MOVING)), False),
    ],
    ids=["half the noise", "clips at twice the threshold", "noise for the first threshold", "literal", "no fault"],
)
def test_faults_of_a_moving_threshold_are_seen(scheme: AdaptiveClipping, seen: bool) -> None:
    found = audit_steps(moving_job(scheme), seed=2, delta=DELTA, watch=WhiteBoxOptions(200))
    assert (found.gaussian.lower > 1.3 * proved_of(scheme)) is seen
    assert (found.clopper_pearson.lower > 1.3 * proved_of(scheme)) is seen
    assert seen or found.gaussian.lower < proved_of(scheme)


def test_a_calibrated_scheme_keeps_its_noise_for_fewer_steps() -> None:
    scheme = replace(MOVING, noise_multiplier=None, epsilon=3.0)
    assert scheme.fixed(LOTS).noises(replace(LOTS, epochs=1)) == scheme.noises(LOTS)


def test_the_prior_aware_attack_does_not_follow_a_moving_threshold() -> None:
    with pytest.raises(ValueError, match="moves its clipping threshold"):
        audit_reconstruction(moving_job(MOVING), candidates=4, trials=2, seed=1)
