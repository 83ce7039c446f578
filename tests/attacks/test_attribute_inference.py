"""Attribute inference on tables with a planted leak, against a closed form, and beside ART on real rows."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.inference.attribute_inference import AttributeInference, codes_of, hidden_column, imputed, without
from attacks.inference.white_box_attributes import linear_posterior
from attacks.protocol import Guesses
from attacks.target import Target
from attacks.view import expose
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.errors import NotApplicableError
from defenses.recipe import Recipe
from defenses.records import BoolArray, Column, Image, IntArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD

HOME = Column("home", ("north", "east", "south", "west"), 0, 1, 3, 4)
NUMBERS = tuple(Column(name, (), 0, 1, start, 1) for start, name in enumerate(("age", "pay", "rent")))
KIND = Table((*NUMBERS, HOME), "y", ("0", "1"))


def people(rng: np.random.Generator, count: int, *, noise: float, deciding: int = 1) -> Records:
    """Label: whether home is east or west, flipped by each `deciding` number above the middle; `noise` are coins."""
    numbers, home = rng.random((count, 3)), rng.integers(0, 4, count)
    label = (home + (numbers[:, :deciding] > 0.5).sum(axis=1)) % 2
    label = np.where(rng.random(count) < noise, rng.integers(0, 2, count), label)
    return Records(np.column_stack([numbers, np.eye(4)[home]]).astype(np.float32), label.astype(np.int64), 2, KIND)


def network(
    pool: Records, members: BoolArray, hidden: list[int], *, epochs: int, lot: int, rate: float = 0.1
) -> torch.nn.Module:
    lots = Lots(int(members.sum()), lot, epochs)
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": hidden}), lots=lots, learning_rate=rate, optimizer=SGD(0.9)
    )
    return train(Job(recipe, NoDefense(), pool), members[None], [1], device="cpu").one(0)


def guess(attack: AttributeInference, target: Target) -> Guesses:
    return attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))


def right(guesses: IntArray, truth: IntArray, among: BoolArray) -> float:
    return float((guesses == truth)[among].mean())


def small(seed: int = 0, *, count: int = 40, population: int = 200) -> Target:
    """Records, a population, and a network that was never trained."""
    rng = np.random.default_rng(seed)
    model = Architecture("mlp", {"hidden": []}).build((7,), 2, seed=seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return Target(model, people(rng, count, noise=0.3), "d", population=people(rng, population, noise=0.3))


def test_what_is_known_by_heart_gives_the_attribute_away() -> None:
    rng = np.random.default_rng(0)
    pool, population = people(rng, 200, noise=0.5), people(rng, 1000, noise=0.5)
    members, truth = np.arange(200) < 100, codes_of(pool.x, HOME)
    model = network(pool, members, [128], epochs=600, lot=20, rate=0.2)
    found = guess(AttributeInference("home"), Target(model, pool, "d", population=population))
    gain = right(found.values, truth, members) - right(found.without_target, truth, members)
    elsewhere = right(found.values, truth, ~members) - right(found.without_target, truth, ~members)
    assert gain > 0.1
    assert elsewhere < gain - 0.1
    assert right(found.without_target, truth, np.ones(200, bool)) > 0.3  # a quarter is guessing; the label tells more


def test_a_model_of_the_answers_learns_what_the_target_knows_of_everybody() -> None:
    rng = np.random.default_rng(1)
    pool, population = people(rng, 2000, noise=0.0, deciding=2), people(rng, 80, noise=0.0, deciding=2)
    members, truth = np.arange(2000) < 1600, codes_of(pool.x, HOME)
    target = Target(network(pool, members, [32], epochs=40, lot=40), pool, "d", population=population)
    found = guess(AttributeInference("home", "learned"), target)
    for among in (members, ~members):
        assert right(found.values, truth, among) > right(found.without_target, truth, among) + 0.1


def test_a_target_that_knows_nothing_changes_no_guess() -> None:
    target = small()
    for parameter in target.model.parameters():
        torch.nn.init.zeros_(parameter)
    found = guess(AttributeInference("home"), target)
    assert np.array_equal(found.values, found.without_target)


def test_the_posterior_is_that_of_a_linear_model() -> None:
    target = small()
    assert target.population is not None
    linear = next(layer for layer in target.model.modules() if isinstance(layer, torch.nn.Linear))
    prior = imputed(
        without(target.population, HOME),
        codes_of(target.population.x, HOME),
        without(target.candidates, HOME),
        categories=4,
        seed=int(np.random.default_rng(0).integers(2**31)),
    )
    posterior = linear_posterior(
        linear.weight.detach().numpy(),
        linear.bias.detach().numpy(),
        target.candidates.x,
        target.candidates.y,
        at=slice(3, 7),
        values=np.eye(4),
        prior=prior,
    )
    found = guess(AttributeInference("home"), target)
    assert np.array_equal(found.values, posterior.argmax(axis=1))
    assert np.array_equal(found.without_target, prior.argmax(axis=1))
    assert not np.array_equal(found.values, found.without_target)


@pytest.mark.parametrize("method", ["confidence", "learned"])
def test_what_the_hidden_column_holds_changes_nothing(method: str) -> None:
    target = small()
    attack = AttributeInference("home", method)  # type: ignore[arg-type]
    x = target.candidates.x.copy()
    x[:, 3:] = np.roll(x[:, 3:], 1, axis=1)
    other = replace(target, candidates=replace(target.candidates, x=x))
    one, again = guess(attack, target), guess(attack, other)
    assert np.array_equal(one.values, again.values)
    assert np.array_equal(one.without_target, again.without_target)
    assert one.hidden == "home"


@pytest.mark.parametrize("seed", [0, 1])
def test_imputation_reaches_what_is_known_of_the_columns(seed: int) -> None:
    # Of 4 categories the features say one, by a linear rule or by parity, and 7 in 10 obey.
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (3000, 6))
    for rule in (2 * bits[:, 0] + bits[:, 1], 2 * (bits[:, 0] ^ bits[:, 1]) + (bits[:, 2] ^ bits[:, 3])):
        said = np.where(rng.random(3000) < 0.6, rule, rng.integers(0, 4, 3000))
        chance = imputed(bits[:2000].astype(float), said[:2000], bits[2000:].astype(float), categories=5)
        assert np.allclose(chance.sum(axis=1), 1)
        assert (chance > 0).all()
        assert chance[:, 4].max() < 0.001
        assert (chance.argmax(axis=1) == rule[2000:]).mean() > 0.99
        assert 0.4 < chance.max(axis=1).mean() < 0.75  # the linear half of the mean does not see parity


def test_a_population_of_one_value_is_no_error() -> None:
    chance = imputed(np.zeros((3, 2)), np.array([2, 2, 2]), np.zeros((1, 2)), categories=4)
    assert np.allclose(chance, [[0.0625, 0.0625, 0.8125, 0.0625]])
    with pytest.raises(ValueError, match="at least one complete record"):
        imputed(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), np.zeros((1, 2)), categories=4)


def test_values_that_the_population_lacks_are_named() -> None:
    target = small()
    assert target.population is not None
    some = target.population.take(codes_of(target.population.x, HOME) < 3)
    assert guess(AttributeInference("home"), replace(target, population=some)).notes == (
        "1 of 4 values of 'home' occur in no population record.",
    )
    assert guess(AttributeInference("home"), target).notes == ()


def test_columns_that_cannot_be_guessed_are_refused() -> None:
    target = small()
    with pytest.raises(NotApplicableError, match=r"'age', which is numeric.*categorical columns are home"):
        guess(AttributeInference("age"), target)
    with pytest.raises(NotApplicableError, match=r"'street'.*do not have: columns are age, pay, rent, home"):
        guess(AttributeInference("street"), target)
    with pytest.raises(NotApplicableError, match=r"'street', which records.*categorical columns are home"):
        hidden_column(KIND, "street")
    with pytest.raises(NotApplicableError, match="they have no categorical column"):
        hidden_column(Image(), "home")
    with pytest.raises(NotApplicableError, match="population"):
        guess(AttributeInference("home"), replace(target, population=None))
    assert target.population is not None
    with pytest.raises(NotApplicableError, match="the population is empty"):
        guess(AttributeInference("home"), replace(target, population=target.population.take(np.arange(0))))
    with pytest.raises(ValueError, match="method is 'oracle'"):
        AttributeInference("home", "oracle")  # type: ignore[arg-type]


@pytest.mark.slow
def test_on_adult_beside_art(data_dir: Path) -> None:
    # What the literature finds: nearly all is imputation; a network that knows its records adds a few points on them.
    from auditor.datasets import load

    adult = load("adult", data_dir=data_dir)
    rows = np.random.default_rng(0).permutation(len(adult))
    pool, population = adult.take(rows[:1600]), adult.take(rows[1600:4600])
    members = np.arange(1600) < 800
    target = Target(network(pool, members, [128], epochs=100, lot=50), pool, "d", population=population)
    column = hidden_column(adult.kind, "occupation")
    truth = codes_of(pool.x, column)
    found = guess(AttributeInference("occupation"), target)
    learned = guess(AttributeInference("occupation", "learned"), target)
    gain = right(found.values, truth, members) - right(found.without_target, truth, members)
    elsewhere = right(found.values, truth, ~members) - right(found.without_target, truth, ~members)
    assert gain > 0.015
    assert elsewhere < gain - 0.03
    assert abs(right(learned.values, truth, ~members) - right(learned.without_target, truth, ~members)) < 0.03
    for name, theirs in art_guesses(target, column).items():
        best = found.values if "box" in name else found.without_target
        assert right(best, truth, members) > right(theirs, truth, members) - 0.01, name


def art_guesses(target: Target, column: Column) -> dict[str, IntArray]:
    """What ART's attacks guess, which also know what the target predicts for the true record, and its baselines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.inference.attribute_inference import (
            AttributeInferenceBaselineTrueLabel,
            AttributeInferenceBlackBox,
        )
        from art.estimators.classification import PyTorchClassifier

    pool, population = target.candidates, target.population
    assert population is not None
    model = PyTorchClassifier(target.model, torch.nn.CrossEntropyLoss(), input_shape=pool.shape, nb_classes=2)
    block = slice(column.start, column.start + column.width, 1)
    others, labels = np.delete(pool.x, block, axis=1), np.eye(2, dtype=np.float32)[pool.y]
    said = model.predict(pool.x).argmax(axis=1)[:, None].astype(np.float32)
    values = [[0.0, 1.0]] * column.width
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("rf", "lr"):
            attack = AttributeInferenceBlackBox(model, attack_model_type=kind, attack_feature=block)
            attack.fit(population.x, population.y)
            found[f"black box {kind}"] = attack.infer(others, labels, pred=said, values=values).argmax(axis=1)
            baseline = AttributeInferenceBaselineTrueLabel(attack_model_type=kind, attack_feature=block)
            baseline.fit(population.x, population.y)
            found[f"baseline {kind}"] = baseline.infer(others, labels, values=values).argmax(axis=1)
    return found
