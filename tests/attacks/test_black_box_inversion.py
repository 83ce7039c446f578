"""Inversion by queries: class means of digits from answers alone, and the directions it looks along."""

import numpy as np
import pytest

from attacks.capabilities import Capability
from attacks.reconstruction.black_box_inversion import BlackBoxInversion, slow_basis
from attacks.record_spec import RecordSpec
from attacks.target import Target
from attacks.view import expose
from auditor.datasets import load
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.errors import NotDisclosedError
from defenses.recipe import Recipe
from defenses.records import Image, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD


@pytest.fixture(scope="module")
def digits() -> Target:
    records = load("digits").take(np.arange(1000))
    recipe = Recipe(architecture=Architecture("mlp"), lots=Lots(1000, 32, 30), learning_rate=0.05, optimizer=SGD(0.9))
    model = train(Job(recipe, NoDefense(), records), np.ones((1, 1000), dtype=np.bool_), [1], device="cpu").one(0)
    return Target(model, records, "d")


def test_class_means_come_out_of_answers_alone(digits: Target) -> None:
    attack = BlackBoxInversion()
    view = expose(digits, attack.requires)
    with pytest.raises(NotDisclosedError):
        view.module()
    claim = attack.run(view, rng=np.random.default_rng(0))
    records = digits.candidates
    own, others = [], []
    for label in range(10):
        for other in range(10):
            mean = records.x[records.y == other].mean(0)
            found = np.corrcoef(claim.x[label].ravel(), mean.ravel())[0, 1]
            (own if label == other else others).append(found)
    assert np.mean(own) > 0.6
    assert np.mean(own) > np.mean(others) + 0.25
    assert "10 of 10 reconstructions reached" in claim.notes[0]
    assert f"{view.queries:,} queries" in claim.notes[0]


def test_queries_are_what_it_is_allowed_to_ask(digits: Target) -> None:
    attack = BlackBoxInversion(steps=2, directions=3, confidence=0.999999999)
    view = expose(digits, attack.requires)
    attack.run(view, rng=np.random.default_rng(0))
    assert attack.requires.access == {Capability.PROBABILITIES}
    assert view.queries == 2 * (10 + 10 * 2 * 3)  # where it stands, and both sides of each direction


def test_who_stops_early_asks_less(digits: Target) -> None:
    asked = []
    for early_stop in (False, True):
        attack = BlackBoxInversion(early_stop=early_stop, steps=60)
        view = expose(digits, attack.requires)
        claim = attack.run(view, rng=np.random.default_rng(0))
        assert "10 of 10 reconstructions reached" in claim.notes[0]
        asked.append(view.queries)
    assert asked[0] == 60 * (10 + 10 * 2 * 20)
    assert asked[1] < 0.9 * asked[0]


def test_directions_are_orthonormal_and_smooth_for_images() -> None:
    basis = slow_basis(RecordSpec((2, 9, 7), 3, Image()), 4)
    assert basis.shape == (2 * 4 * 4, 2 * 9 * 7)
    assert basis @ basis.T == pytest.approx(np.eye(32), abs=1e-12)
    first = basis[0].reshape(2, 9, 7)
    assert np.ptp(first[0]) == pytest.approx(0, abs=1e-12)  # brightness of the first channel alone
    assert not first[1].any()
    assert np.array_equal(slow_basis(RecordSpec((5,), 3, Table((), "y", ())), 2), np.eye(5))


@pytest.mark.parametrize(
    "given", [{"steps": 0}, {"confidence": 1.0}, {"probe": 0.0}, {"smoothness": -1.0}, {"frequencies": -1}]
)
def test_impossible_numbers_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        BlackBoxInversion(**given)  # type: ignore[arg-type]
