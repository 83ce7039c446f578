"""Quantile regression against signals whose quantiles are known, and against what must not matter to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from attacks.membership.loss_threshold import LossThreshold
from attacks.membership.quantile import Quantile, quantile_scores, record_features
from attacks.membership.signals import logit_confidence
from attacks.target import Target
from attacks.view import expose
from auditor.datasets import load
from defenses.architectures import Architecture
from defenses.engine.store import ModelStore
from defenses.engine.training import Job
from defenses.errors import NotApplicableError
from defenses.recipe import Recipe
from defenses.records import BoolArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD


def example(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, median and spread of a signal that are steps of the features, and the signal."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.uniform(-1, 1, n), rng.integers(0, 4, n)])
    median = 4 * (features[:, 0] > 0) + np.array([0.0, 5.0, -5.0, 1.0])[features[:, 1].astype(int)]
    spread = np.where(features[:, 0] > 0, 0.5, 2.0)
    return features, median, spread, median + spread * rng.normal(size=n)


@pytest.mark.parametrize("scaled", [False, True])
def test_median_and_spread_are_found(scaled: bool) -> None:
    features, median, spread, signal = example(1000, 1)
    population_features, _, _, population = example(4000, 2)
    found = quantile_scores(signal, features, population, population_features, categorical=1, scaled=scaled)
    expected = signal - median
    if scaled:
        expected /= spread * (norm.ppf(0.9) - norm.ppf(0.1))
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.3 * expected.std()


def test_it_finds_members_that_a_global_threshold_does_not() -> None:
    features, _, _, signal = example(2000, 3)
    population_features, _, _, population = example(2000, 4)
    truth = np.random.default_rng(5).random(2000) < 0.5
    found = quantile_scores(signal + 2.0 * truth, features, population, population_features, categorical=1)
    assert roc_auc_score(truth, found) > roc_auc_score(truth, signal + 2.0 * truth) + 0.15


def test_no_spread_at_all_gives_finite_scores() -> None:
    features, _, _, _ = example(50, 0)
    for scaled in (False, True):
        found = quantile_scores(np.full(50, 1.0), features, np.full(50, 1.0), features, scaled=scaled)
        assert np.allclose(found, 0)


def table(x: np.ndarray, y: np.ndarray) -> Records:
    return Records(x.astype(np.float32), y, 3, Table((), "y", ()))


def blobs(n: int, seed: int) -> Records:
    """Classes that overlap, a tenth of the labels wrong."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = 1.5 * np.eye(3, 6)[y] + rng.normal(size=(n, 6))
    return table(x, np.where(rng.random(n) < 0.1, rng.integers(0, 3, n), y))


def test_easiness_is_judged_by_those_who_did_not_see_the_record() -> None:
    # Nothing can be learned of random labels: a population that looks easier than the candidates was learned by heart,
    # and every candidate would look a little like a non-member.
    rng = np.random.default_rng(0)
    candidates, population = (table(rng.normal(size=(n, 60)), rng.integers(0, 3, n)) for n in (1500, 600))
    features, population_features = record_features(candidates, population, components=2, seed=0)
    assert features.shape == (1500, 4)
    assert population_features.shape == (600, 4)
    assert np.array_equal(features[:, -1], candidates.y)
    easy, easy_population = features[:, 2], population_features[:, 2]
    assert abs(easy.mean() - easy_population.mean()) < 4 * easy_population.std() / np.sqrt(600)


def test_a_wrong_label_is_hard() -> None:
    candidates, population = blobs(1500, 0), blobs(60, 1)
    wrong = table(candidates.x, (candidates.y + 1) % 3)
    easy, hard = (record_features(part, population, components=2, seed=0)[0][:, 2] for part in (candidates, wrong))
    assert hard.mean() < easy.mean() - 1


def test_features_do_not_depend_on_the_other_candidates() -> None:
    candidates, population = blobs(40, 0), blobs(60, 1)
    whole = record_features(candidates, population, components=3, seed=0)[0]
    part = record_features(candidates.take(np.arange(5)), population, components=3, seed=0)[0]
    assert np.allclose(whole[:5], part)


def test_a_class_that_the_population_lacks_gets_numbers() -> None:
    candidates, population = blobs(40, 0), blobs(60, 1)
    one = population.take(population.y == 1)
    for outside in (population.take(population.y != 2), table(np.tile(one.x, (4, 1)), np.tile(one.y, 4))):
        features, _ = record_features(candidates, outside, components=3, seed=0)
        assert np.isfinite(features).all()


@pytest.mark.parametrize("scaled", [False, True])
def test_it_finds_members_of_a_leaky_model(scaled: bool, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    view = expose(target, Quantile().requires)
    scores = Quantile(scaled=scaled).run(view, rng=np.random.default_rng(0)).scores
    assert roc_auc_score(included, scores) > 0.9
    confidence = logit_confidence(view.logits(target.candidates.x), target.candidates.y)
    assert np.corrcoef(scores, confidence)[0, 1] < 0.999  # the regression did something


def test_too_small_a_population_is_said_to_be() -> None:
    with pytest.raises(ValueError, match="at least one population record"):
        quantile_scores(np.zeros(2), np.zeros((2, 1)), np.zeros(0), np.zeros((0, 1)))
    with pytest.raises(ValueError, match="components is 0"):
        Quantile(components=0)


def test_fewer_than_twenty_population_records_do_not_do(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    assert target.population is not None
    few = replace(target, population=target.population.take(np.arange(19)))
    with pytest.raises(NotApplicableError, match=r"19 records; quantile regression needs at least 20"):
        Quantile().run(expose(few, Quantile().requires), rng=np.random.default_rng(0))


def test_it_finds_more_than_the_loss_on_real_records(data_dir: Path, tmp_path: Path) -> None:
    records = load("location30", data_dir=data_dir, download=False)
    order = np.random.default_rng(0).permutation(len(records))
    pool, outside = records.take(order[:2000]), records.take(order[2000:3500])
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [64]}),
        lots=Lots(1000, 64, 40),
        learning_rate=0.1,
        optimizer=SGD(0.9),
    )
    included = np.random.default_rng(1).random(2000) < 0.5
    model = ModelStore(tmp_path).train(Job(recipe, NoDefense(), pool), included[None], [5], device="cpu").one(0)
    target = Target(model, pool, "digest", population=outside)
    found = {
        attack.name: roc_auc_score(
            included, attack.run(expose(target, attack.requires), rng=np.random.default_rng(0)).scores
        )
        for attack in (LossThreshold(), Quantile())
    }
    assert found["quantile"] > found["loss_threshold"] + 0.01
