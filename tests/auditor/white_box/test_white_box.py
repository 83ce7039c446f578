"""The white-box audit against DP-SGD with and without faults, simulated steps, and closed forms."""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from auditor.epsilon.balanced_bound import gaussian_guesses, mu_from_guesses
from auditor.epsilon.bound import BoundKind
from auditor.epsilon.gaussian_bound import gaussian_dp, mu_limit
from auditor.white_box.gradient_canaries import Access, Directions, GradientCanaries, log_likelihood_ratios
from auditor.white_box.step_audit import (
    WhiteBoxOptions,
    audit_one_run,
    audit_steps,
    claim_of,
    observe_one_run,
    observe_steps,
)
from auditor.white_box.step_bounds import LARGEST_EXCESS, audit_observations, implied_epsilon, mu_limits
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import Defense, History, Job
from defenses.gradients import ClippedGaussian, GradientRule
from defenses.modes import Mode
from defenses.recipe import Recipe, Schedule
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.layerwise_dp import LayerwiseDP
from defenses.schemes.none import NoDefense
from defenses.updates import SGD, Adam, Tensors

DELTA = 1e-5


@dataclass(frozen=True)
class Unclipped(ClippedGaussian):
    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        return mask[:, None].to(norms.dtype), norms.new_zeros((len(norms), 0))


@dataclass(frozen=True, kw_only=True)
class NoClipping(DPSGD):
    def gradient(self, lots: Lots) -> GradientRule:  # type: ignore[override]
        return Unclipped(self.max_grad_norm, self.noise(lots))


@dataclass(frozen=True, kw_only=True)
class HalfTheNoise(DPSGD):
    def gradient(self, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(self.max_grad_norm, self.noise(lots) / 2)


@dataclass(frozen=True, kw_only=True)
class NoiseNotScaledByC(DPSGD):
    def gradient(self, lots: Lots) -> ClippedGaussian:
        return ClippedGaussian(self.max_grad_norm, self.noise(lots) / self.max_grad_norm)


def make_job(defense: Defense, *, epochs: int = 5, **changes: object) -> Job:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 20)).astype(np.float32)
    records = Records(x, rng.integers(0, 4, 800), 4, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [64]}), lots=Lots(800, 20, epochs), learning_rate=0.5)
    return Job(replace(recipe, **changes), defense, records)  # type: ignore[arg-type]


@functools.cache
def proved(noise_multiplier: float, *, epochs: int = 5) -> float:
    job = make_job(DPSGD(noise_multiplier=noise_multiplier), epochs=epochs)
    found = account_run(job.defense, History(job.recipe.lots), delta=DELTA)
    return found.epsilon  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "noise_multiplier",
    [pytest.param(1.0, id="epsilon about 2"), pytest.param(0.55, id="epsilon about 8", marks=pytest.mark.slow)],
)
def test_a_correct_run_shows_nearly_all_that_is_proved_and_no_more(noise_multiplier: float) -> None:
    job = make_job(DPSGD(noise_multiplier=noise_multiplier, max_grad_norm=0.3))
    found = audit_steps(job, seed=1, delta=DELTA)
    most = proved(noise_multiplier)
    assert found.trials == 512 * 200
    assert 0.95 * most < found.gaussian.lower < most
    assert 0.80 * most < found.clopper_pearson.lower < most
    for bound in (found.gaussian, found.clopper_pearson):
        assert bound.kind is BoundKind.IMPLIED
        assert bound.ceiling > most
        assert any("sampling rate" in text.lower() for text in bound.assumptions)


@pytest.mark.parametrize("scheme", [NoClipping, HalfTheNoise, NoiseNotScaledByC])
@pytest.mark.parametrize("directions", Directions)
def test_faults_show_more_than_is_proved(scheme: type[DPSGD], directions: Directions) -> None:
    # Another clipping norm than 1, or noise that is not scaled by it could not be seen.
    job = make_job(scheme(noise_multiplier=2.0, max_grad_norm=3.0), epochs=1)
    found = audit_steps(job, seed=2, delta=DELTA, watch=WhiteBoxOptions(canaries=96, directions=directions))
    assert found.gaussian.lower > 1.5 * proved(2.0, epochs=1)
    assert found.clopper_pearson.lower > 1.5 * proved(2.0, epochs=1)


def test_two_runs_show_what_one_run_shows() -> None:
    seen = observe_steps(make_job(DPSGD(noise_multiplier=1.0)), seed=3, two_runs=True)
    assert seen.present.shape == (2 * 200, 512)
    assert not seen.present[:200].any()
    assert seen.present[200:].all()
    by_guesses, by_rates = mu_limits(seen.values, seen.present, balanced=True, error=0.05)
    assert 0.95 < by_rates < by_guesses < 1


@pytest.mark.parametrize(
    "optimizer", [SGD(), SGD(momentum=0.9, weight_decay=0.01), SGD(momentum=0.8, nesterov=True)], ids=str
)
def test_iterates_say_what_the_released_sums_say(optimizer: SGD) -> None:
    scheme = DPSGD(noise_multiplier=1.0, max_grad_norm=0.7)
    job = make_job(scheme, epochs=1, optimizer=optimizer, schedule=Schedule.COSINE)
    sums, iterates = (observe_one_run(job, seed=4, watch=WhiteBoxOptions(32, access=access)) for access in Access)
    assert np.array_equal(sums.present, iterates.present)
    np.testing.assert_allclose(iterates.values, sums.values, atol=2e-3)  # the noise has deviation 1
    adam = replace(job, recipe=replace(job.recipe, optimizer=Adam()))
    with pytest.raises(ValueError, match="observe the released sum"):
        observe_one_run(adam, seed=4, watch=WhiteBoxOptions(32, access=Access.ITERATES))


def test_canaries_of_a_whole_run_are_sampled_as_records_are() -> None:
    job = make_job(DPSGD(noise_multiplier=0.5))
    seen = observe_one_run(job, seed=5, watch=WhiteBoxOptions(canaries=400))
    assert seen.values.shape == (200, 400)
    assert not seen.present[:, ~seen.included].any()
    assert 0.4 < seen.included.mean() < 0.6
    share = seen.present[:, seen.included].mean()
    assert share == pytest.approx(20 / 800, abs=4 * np.sqrt(0.025 / seen.present[:, seen.included].size))
    assert seen.values[seen.present].mean() == pytest.approx(1, abs=0.05)
    assert seen.values[~seen.present].std() == pytest.approx(0.5, rel=0.02)
    found = audit_one_run(job, seed=5, delta=DELTA, watch=WhiteBoxOptions(canaries=400))
    assert 0.1 < found.bound.lower < proved(0.5)
    assert found.bound.kind is BoundKind.IMPLIED  # the canaries' lots are drawn beside the engine's sampler


def test_likelihood_ratios_are_those_of_the_densities_and_beat_sums() -> None:
    rng = np.random.default_rng(0)
    steps, m, q, s = 200, 2000, 0.025, 0.5
    included = rng.random(m) < 0.5
    x = (rng.random((steps, m)) < q) * included + rng.normal(scale=s, size=(steps, m))
    scores = log_likelihood_ratios(x, sampling_probability=q, noise_multiplier=s)
    without = stats.norm.pdf(x, 0, s)
    mixed = (1 - q) * without + q * stats.norm.pdf(x, 1, s)
    np.testing.assert_allclose(scores, np.log(mixed / without).sum(0), rtol=1e-9, atol=1e-9)
    assert roc_auc_score(included, scores) > roc_auc_score(included, x.sum(0)) + 0.04
    always = log_likelihood_ratios(x, sampling_probability=1.0, noise_multiplier=s)
    np.testing.assert_allclose(always, (x - 0.5).sum(0) / s**2)


@pytest.mark.parametrize("noise_multiplier", [0.4, 1.0, 3.0])
def test_limits_are_above_the_truth_at_most_at_their_rate(noise_multiplier: float) -> None:
    rng, repeats, trials = np.random.default_rng(1), 1000, 4000
    over = np.zeros(2)
    total = np.zeros(2)
    for _ in range(repeats):
        present = rng.random(trials) < 0.5
        x = present + noise_multiplier * rng.normal(size=trials)
        found = np.array(mu_limits(x, present, balanced=True, error=0.05, thresholds=(0.5, 0.5 - noise_multiplier)))
        over += found > 1 / noise_multiplier
        total += found
    assert (over <= stats.binom.ppf(0.999, repeats, 0.05)).all()
    assert total[0] / repeats > (0.9 if noise_multiplier <= 1 else 0.75) / noise_multiplier


def test_pooled_guesses_hold_for_uneven_rates_and_are_tighter() -> None:
    # Equal sides, and a threshold far from the middle: the sum of two unequal binomials.
    rng, mu, side = np.random.default_rng(2), 1.5, 500
    for threshold in (0.2, 0.75, 1.2):
        wrong = rng.binomial(side, stats.norm.sf(threshold), 4000)
        wrong += rng.binomial(side, stats.norm.cdf(threshold - mu), 4000)
        limits = {count: mu_from_guesses(int(count), 2 * side, error=0.05) for count in np.unique(wrong)}
        over = sum(limits[count] > mu for count in wrong)
        assert over <= stats.binom.ppf(0.999, 4000, 0.05)
    assert mu_from_guesses(300, 1000, error=0.05) > float(mu_limit(150, 500, 150, 500, error=0.05))
    pooled = gaussian_guesses(300, 1000, delta=DELTA, confidence=0.95)
    assert gaussian_dp(150, 500, 150, 500, delta=DELTA, confidence=0.95).lower < pooled.lower < pooled.ceiling


def test_rates_limit_mu_as_the_privacy_profile_does() -> None:
    # The smallest mu whose profile allows the rates at every epsilon, searched for by brute force.
    fpr, tpr = 0.08, 0.45
    epsilons = np.linspace(-8, 8, 4001)
    needed = tpr - np.exp(epsilons) * fpr

    def allows(mu: float) -> bool:
        profile = stats.norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons) * stats.norm.cdf(-mu / 2 - epsilons / mu)
        return bool((profile >= needed - 1e-12).all())

    grid = np.arange(0.5, 3, 0.001)
    smallest = next(mu for mu in grid if allows(mu))
    assert smallest == pytest.approx(stats.norm.ppf(tpr) - stats.norm.ppf(fpr), abs=2e-3)


def test_more_than_twice_the_claim_is_priced_as_twice() -> None:
    claim = claim_of(make_job(DPSGD(noise_multiplier=2.0), epochs=1))
    assert implied_epsilon(0.0, claim, delta=DELTA) == 0
    assert implied_epsilon(9.0, claim, delta=DELTA) == implied_epsilon(LARGEST_EXCESS / 2.0, claim, delta=DELTA)


def test_what_cannot_be_audited_is_refused() -> None:
    job = make_job(DPSGD(noise_multiplier=2.0), epochs=1)
    claim = claim_of(job)
    with pytest.raises(ValueError, match="makes no claim"):
        claim_of(make_job(NoDefense()))
    with pytest.raises(ValueError, match="use at most as many"):
        audit_steps(job, seed=1, delta=DELTA, watch=WhiteBoxOptions(canaries=10**5))
    with pytest.raises(ValueError, match="at least 1"):
        GradientCanaries(0, max_grad_norm=1.0, seed=0)
    judge = functools.partial(audit_observations, claim=claim, balanced=True, delta=DELTA, confidence=0.95)
    coins = np.array([True, False])
    with pytest.raises(ValueError, match="one bool for each"):
        judge(np.zeros(3), coins)
    with pytest.raises(ValueError, match="NaN"):
        judge(np.array([np.nan, 0]), coins)
    with pytest.raises(ValueError, match="both are needed"):
        judge(np.zeros(2), np.array([True, True]))


def test_probes_keep_models_apart() -> None:
    # Coins of two models of one run must differ, or their trials would not be independent.
    canaries = GradientCanaries(64, max_grad_norm=1.0, seed=0)
    assert not np.array_equal(canaries.present(1, (0, 0)), canaries.present(2, (0, 0)))
    assert not np.array_equal(canaries.present(1, (0, 0)), canaries.present(1, (0, 1)))
    assert np.array_equal(
        canaries.present(1, (0, 0)), GradientCanaries(64, max_grad_norm=1.0, seed=0).present(1, (0, 0))
    )


@pytest.mark.parametrize(("mode", "layers_felt"), [(Mode.REPAIRED, 1), (Mode.LITERAL, 2)])
def test_canaries_span_every_layer_that_is_clipped_by_itself(mode: Mode, layers_felt: int) -> None:
    """Two layers of one threshold each with sigma of its own are a step of sigma / sqrt(2), and that is seen."""
    job = make_job(LayerwiseDP(mode=mode, noise_multiplier=2.0, max_grad_norm=0.5, clip_shares=(0.3, 0.7)))
    found = audit_steps(job, seed=3, delta=DELTA, watch=WhiteBoxOptions(200), claim=claim_of(job))
    true = math.sqrt(0.3**2 + 0.7**2) ** -1 / 2.0 if mode is Mode.LITERAL else 1 / 2.0
    assert 0.93 * true < found.gaussian_mu <= true
    assert (found.gaussian_mu > 1 / 2.0) is (layers_felt == 2)


def test_more_canaries_than_a_layer_has_numbers_are_refused() -> None:
    job = make_job(LayerwiseDP(noise_multiplier=2.0, clip_shares=(0.5, 0.5)))
    with pytest.raises(ValueError, match="a group of parameters has 260; use at most as many"):
        audit_steps(job, seed=3, delta=DELTA, watch=WhiteBoxOptions(300))
