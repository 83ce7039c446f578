"""What every scheme must do; schemes are found by discovery, so a new file is covered without touching this one."""

import json
import math

import numpy as np
import pytest
import torch

from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import Defense, History
from defenses.engine.store import model_of
from defenses.engine.training import Job, train
from defenses.guarantee import Guarantee, Unaccounted
from defenses.recipe import Recipe
from defenses.records import Column, Records, Table
from defenses.sampling import Lots
from defenses.schemes import registered_schemes

LOTS = Lots(20, 5, 2)


@pytest.fixture(params=list(registered_schemes()))
def defense(request: pytest.FixtureRequest) -> Defense:
    scheme = registered_schemes()[request.param]
    return scheme(**scheme.example)


COLUMNS = Table(tuple(Column(name, (), -3, 3, place, 1) for place, name in enumerate("abcdef")), "y", ("n", "p"))


def rows(count: int, seed: int) -> Records:
    rng = np.random.default_rng(seed)
    return Records(rng.random((count, 6), np.float32), rng.integers(0, 2, count), 2, COLUMNS)


def pool() -> Records:
    return rows(40, 0)


def public() -> Records:
    return rows(30, 5)


def test_it_trains_and_is_a_function_of_its_seed(defense: Defense) -> None:
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": list(defense.example_hidden)}), lots=LOTS)
    included = np.random.default_rng(1).random((2, 40)) < 0.5
    included[1] = included[0]
    job = Job(recipe, defense, pool(), public=public())
    first, again = (train(job, included, [1, 2], device="cpu") for _ in range(2))
    for name, value in first.parameters.items():
        assert torch.equal(value, again.parameters[name])
    assert any(not torch.equal(value[0], value[1]) for value in first.parameters.values())


def test_it_is_priced_by_the_accountant_or_says_why_not(defense: Defense) -> None:
    found = account_run(defense, History(LOTS), delta=1e-5)
    assert isinstance(found, Guarantee | Unaccounted)
    if isinstance(found, Guarantee) and math.isfinite(found.epsilon):
        assert found.assumptions
        assert found.neighboring is defense.neighboring


def test_what_it_prepares_is_public_as_json_and_goes_through_its_front(defense: Defense) -> None:
    records = pool()
    prepared = defense.prepare(records, np.random.default_rng(0), public=public())
    json.dumps(dict(prepared.facts), allow_nan=False)
    assert prepared.records.classes == records.classes
    if prepared.front is not None:
        assert prepared.front.apply_to(records.x).shape[1:] == prepared.records.shape


def test_what_it_trained_comes_back_from_bytes(defense: Defense) -> None:
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": list(defense.example_hidden)}), lots=LOTS)
    job = Job(recipe, defense, pool(), public=public())
    ensemble = train(job, np.ones((1, 40), bool), [1], device="cpu")
    again = model_of(job, ensemble.to_bytes())
    assert again.architecture == ensemble.architecture
    np.testing.assert_array_equal(again.logits(pool().x), ensemble.logits(pool().x))
    assert again.logits(pool().x).shape == (1, 40, 2)


def test_it_is_described(defense: Defense) -> None:
    assert defense.title
    assert defense.paper
    assert defense.name == defense.name.lower()
