"""The many-run audit on runs small enough for a test, with and without a fault."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.gaussian_bound import gaussian_mu
from auditor.epsilon.many_run_audit import ManyRunAudit, audit_many_runs, crafted_job
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job
from defenses.engine.store import ModelStore
from defenses.engine.training import train
from defenses.ensemble import Ensemble
from defenses.gradients import ClippedGaussian
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense

DELTA = 1e-5
MLP = Architecture("mlp", {"hidden": [8]})


@dataclass(frozen=True, kw_only=True)
class HalfTheNoise(DPSGD):
    def gradient(self, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(self.max_grad_norm, self.noise(lots) / 2)


@pytest.fixture(scope="module")
def pool() -> Records:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = rng.normal(size=(400, 12)) + 3 * np.eye(12)[y]
    return Records(x.astype(np.float32), y, 3, Table((), "y", ()))


@pytest.fixture(scope="module")
def pretrained(pool: Records) -> Ensemble:
    recipe = Recipe(architecture=MLP, lots=Lots(300, 20, 10), learning_rate=0.2)
    return train(Job(recipe, NoDefense(), pool.take(np.arange(300))), np.ones((1, 300), dtype=bool), [1], device="cpu")


def audited(pretrained: Ensemble, pool: Records, defense: DPSGD, runs: int) -> tuple[ManyRunAudit, float]:
    recipe = Recipe(architecture=MLP, lots=Lots(20, 20, 3), learning_rate=0.1)
    job, canary = crafted_job(pretrained, pool.take(np.arange(300, 400)), recipe, defense, members=20)
    most = account_run(job.defense, History(job.recipe.lots), delta=DELTA).epsilon  # type: ignore[union-attr]
    return audit_many_runs(job, canary, runs=runs, seed=3, delta=DELTA, width=50), most


@pytest.mark.parametrize("noise_multiplier", [0.87, 1.03], ids=["epsilon about 10", "epsilon about 8"])
def test_correct_runs_show_most_of_what_is_proved_and_no_more(
    pretrained: Ensemble, pool: Records, noise_multiplier: float
) -> None:
    found, most = audited(pretrained, pool, DPSGD(noise_multiplier=noise_multiplier), 400)
    assert 0.65 * most < found.gaussian.lower < most
    assert 0 < found.clopper_pearson.lower < found.gaussian.lower
    assert found.gaussian.kind is BoundKind.CONFIDENCE
    # The final loss tells as much as all steps together: its separation is that of the whole run's Gaussian.
    ins, outs = found.scores[found.included], found.scores[~found.included]
    separation = (ins.mean() - outs.mean()) / np.sqrt((ins.var() + outs.var()) / 2)
    assert separation == pytest.approx(gaussian_mu(most, DELTA), rel=0.15)


def test_half_the_noise_shows_more_than_is_proved(pretrained: Ensemble, pool: Records) -> None:
    found, most = audited(pretrained, pool, HalfTheNoise(noise_multiplier=2.0), 150)
    assert found.gaussian.lower > most


def test_the_worst_case_is_crafted_without_looking_at_the_runs(pretrained: Ensemble, pool: Records) -> None:
    candidates = pool.take(np.arange(300, 400))
    recipe = Recipe(architecture=MLP, lots=Lots(5, 1, 2), learning_rate=0.1)
    job, canary = crafted_job(pretrained, candidates, recipe, DPSGD(noise_multiplier=1.0), members=40)
    assert len(job.records) == 40
    assert canary == 39
    assert not job.records.x[canary].any()
    logits = pretrained.logits(job.records.x)[0]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(40), job.records.y]
    others = pretrained.logits(candidates.x)[0]
    everyone = np.sort(np.log(np.exp(others).sum(1)) - others[np.arange(100), candidates.y])
    np.testing.assert_allclose(np.sort(losses[:-1]), everyone[:39], atol=1e-9)
    assert losses[canary] == max(np.log(np.exp(logits[canary]).sum()) - logits[canary])
    assert job.recipe.lots == Lots(40, 40, 2)
    assert job.recipe.lots.sampling_probability == 1
    with pytest.raises(ValueError, match=r"2\.\.101"):
        crafted_job(pretrained, candidates, recipe, DPSGD(noise_multiplier=1.0), members=102)


def test_runs_can_be_kept(pretrained: Ensemble, pool: Records, tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = Recipe(architecture=MLP, lots=Lots(20, 20, 2), learning_rate=0.1)
    scheme = DPSGD(noise_multiplier=1.0)
    job, canary = crafted_job(pretrained, pool, recipe, scheme, members=20)
    store = ModelStore(tmp_path)
    kept, again, direct = (
        audit_many_runs(job, canary, runs=4, seed=1, delta=DELTA, width=4, train_models=each)
        for each in (store.train, store.train, train)
    )
    assert (store.trained, store.loaded) == (10, 10)
    assert np.array_equal(kept.scores, again.scores)
    assert np.array_equal(kept.scores, direct.scores)
    assert kept.included.sum() == 4
    with pytest.raises(ValueError, match="made for DP-SGD"):
        audit_many_runs(replace(job, defense=NoDefense()), canary, runs=4, seed=1, delta=DELTA)
