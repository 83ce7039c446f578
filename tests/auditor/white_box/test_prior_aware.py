"""The prior-aware attack beside the bound: sound code stays under it, broken code is seen above it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from attacks.reconstruction.rero import rero_bound
from auditor.verdicts.epsilon_claims import judge_reconstruction
from auditor.white_box.prior_aware import audit_reconstruction, one_sided
from auditor.white_box.step_audit import claim_of
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.gradients import ClippedGaussian
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from reports.records.report import Status


def job(defense: DPSGD, *, batch_size: int = 10) -> Job:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 12)).astype(np.float32)
    records = Records(x, rng.integers(0, 3, 80), 3, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [8]}), lots=Lots(40, batch_size, 2), learning_rate=0.2)
    return Job(recipe, defense, records)


@pytest.mark.slow
def test_sound_training_comes_near_the_bound_and_not_above_it() -> None:
    found = audit_reconstruction(job(DPSGD(noise_multiplier=1.0)), candidates=8, trials=400, seed=1)
    assert found.success.value is not None
    assert found.success.low is not None
    assert 0.5 * found.bound < found.success.value  # guessing gives 1 / 8, less than half of the bound
    assert found.success.value > 1.5 / 8
    assert found.success.low < found.bound
    assert judge_reconstruction(found).status is Status.CONSISTENT


def test_one_full_step_reaches_the_bound() -> None:
    # With q = 1 and one step, two candidates of opposite unit gradients are at most Phi(1 / s) apart.
    whole = job(DPSGD(noise_multiplier=1.0), batch_size=40)
    one = replace(whole, recipe=replace(whole.recipe, lots=Lots(40, 40, 1)))
    found = audit_reconstruction(one, candidates=2, trials=600, seed=3)
    assert found.bound == pytest.approx(rero_bound(0.5, sampling_probability=1.0, noise_multiplier=1.0, steps=1))
    assert found.success.value is not None
    assert 0.6 < found.success.value < found.bound + 0.05


@dataclass(frozen=True)
class TooQuiet(DPSGD):
    """Adds a quarter of the noise that it is priced for."""

    name = "too_quiet"

    def gradient(self, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(self.max_grad_norm, self.noise(lots) / 4)


@dataclass(frozen=True)
class Loose(DPSGD):
    """Clips four times too late."""

    name = "loose"

    def gradient(self, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(4 * self.max_grad_norm, self.noise(lots) / 4)


@pytest.mark.parametrize("kind", [TooQuiet, Loose])
def test_broken_steps_contradict_the_bound(kind: type[DPSGD]) -> None:
    broken = kind(noise_multiplier=2.0, max_grad_norm=0.5)
    found = audit_reconstruction(job(broken), candidates=8, trials=150, seed=2, claim=claim_of(job(broken)))
    finding = judge_reconstruction(found)
    assert finding.status is Status.VIOLATED
    assert finding.code == "PA004"
    assert "contradicted" in finding.sentence


def test_too_few_trials_say_so() -> None:
    found = audit_reconstruction(job(DPSGD(noise_multiplier=0.3)), candidates=2, trials=1, seed=1)
    assert judge_reconstruction(found).status is Status.INCONCLUSIVE


def test_the_limit_is_one_sided() -> None:
    found = one_sided(10, 10, confidence=0.95)
    assert found.low == pytest.approx(0.05 ** (1 / 10))
    assert found.high == 1


@pytest.mark.parametrize(
    ("candidates", "trials", "message"),
    [(1, 5, "candidates is 1"), (3, 0, "trials 0"), (60, 5, "39 that are always in and 60 candidates need 99")],
)
def test_impossible_numbers_are_refused(candidates: int, trials: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit_reconstruction(job(DPSGD(noise_multiplier=1.0)), candidates=candidates, trials=trials, seed=1)
