"""Participant's GAN: it satisfies the classifier, varies within a class, and shows records where a class is one."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from attacks.protocol import Reconstructions
from attacks.reconstruction.participant_gan import ParticipantGan
from attacks.similarity import ncc, similarities
from attacks.target import Target
from attacks.view import expose
from auditor.evidence.record_leakage import record_leakage
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.recipe import Precision, Recipe
from defenses.records import Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD


def digits(count: int, *, start: int = 0, own: bool = False) -> Records:
    """Some digits; each in a class of its `own`, or in that of its digit."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[start : start + count]
    labels, classes = (np.arange(count), count) if own else (y[order], 10)
    images = (x[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    return Records(images, labels.astype(np.int64), classes, Image())


def classifier(records: Records, *, epochs: int = 100, precision: Precision = Precision.FLOAT32) -> torch.nn.Module:
    recipe = Recipe(
        architecture=Architecture("mlp"),
        lots=Lots(len(records), 20, epochs),
        learning_rate=0.05,
        optimizer=SGD(momentum=0.9),
        precision=precision,
    )
    job = Job(recipe, NoDefense(), records)
    return train(job, np.ones((1, len(records)), dtype=bool), [1], device="cpu").one(0)


def attack(model: torch.nn.Module, records: Records, **settings: float) -> Reconstructions:
    chosen = ParticipantGan(**settings)  # type: ignore[arg-type]
    return chosen.run(expose(Target(model, records, "d"), chosen.requires), rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return classifier(digits(400), epochs=30)


def test_a_class_that_is_one_record_shows_it() -> None:
    train_on, holdout = digits(50, own=True), digits(50, start=50)
    claim = attack(classifier(train_on), train_on)
    measure = next(iter(similarities(Image()).values()))
    found = record_leakage(
        measure(claim.x, train_on.x), measure(claim.x, holdout.x), rng=np.random.default_rng(0), permutations=999
    )
    assert found.auc.value is not None
    assert found.auc.value > 0.75
    assert found.p_value < 0.01
    assert found.copy_rate > 0.8
    own = ncc(claim.x, train_on.x)[np.arange(400), np.arange(400) % 50]  # reconstructions come class by class
    assert own.mean() > ncc(claim.x, train_on.x).mean() + 0.2


def test_the_target_is_satisfied_and_is_left_as_it_was(model: torch.nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    claim = attack(model, digits(400), steps=300, samples=205)
    with torch.no_grad():
        called = model(torch.from_numpy(claim.x)).argmax(1).numpy()
    hits = int((called == np.arange(205) % 10).sum())
    assert hits > 195
    assert claim.notes == (f"The target calls {hits} of 205 reconstructions by the class that they were made for.",)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def spread(claim: Reconstructions) -> float:
    """Return the mean distance of two reconstructions of one class."""
    by_class = claim.x.reshape(-1, 10, 64)
    return float(np.sqrt(((by_class[1:] - by_class[:-1]) ** 2).mean(axis=2)).mean())


def test_variety_is_asked_for_and_bounded(model: torch.nn.Module) -> None:
    without, some, much = (
        spread(attack(model, digits(400), steps=300, diversity=diversity, spread=wide))
        for diversity, wide in ((0.0, 0.1), (1.0, 0.1), (1.0, 0.25))
    )
    assert without < 0.05
    assert 0.08 < some < 0.22  # the classifier may want more of it, but nothing pushes on
    assert much > some + 0.04


def test_smoothness_lowers_the_variation_of_images(model: torch.nn.Module) -> None:
    rough, smooth = (
        np.abs(np.diff(attack(model, digits(400), steps=300, smoothness=weight).x, axis=3)).mean()
        for weight in (0.0, 3.0)
    )
    assert smooth < 0.7 * rough


def test_other_ranges_types_and_tables() -> None:
    records = digits(60)
    moved = Records(4 * records.x - 2, records.y, 10, Image(-2.0, 2.0))
    wide = classifier(moved, epochs=20, precision=Precision.FLOAT64)
    claim = attack(wide, moved, steps=300, samples=30)
    assert claim.x.dtype == np.float32
    assert claim.x.min() < -0.5
    assert claim.x.max() > 0.5
    assert np.abs(claim.x).max() <= 2
    rows = Records(records.x.reshape(60, 64), records.y, 10, Table((), "y", ()))
    claim = attack(classifier(rows, epochs=20), rows, steps=300, samples=3)
    assert claim.x.shape == (3, 64)
    assert claim.x.min() >= 0
    assert claim.x.max() <= 1


def test_equal_randomness_gives_equal_records_and_leaves_the_global_state(model: torch.nn.Module) -> None:
    state = torch.get_rng_state()
    one, again = (attack(model, digits(400), steps=5, samples=10) for _ in range(2))
    assert np.array_equal(one.x, again.x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "settings",
    [{"samples": 0}, {"steps": 0}, {"batch_size": 3}, {"hidden": 0}, {"learning_rate": 0.0}, {"confidence": 1.0},
     {"spread": 0.0}, {"diversity": -1.0}, {"smoothness": np.inf}],
)  # fmt: skip
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ParticipantGan(**settings)  # type: ignore[arg-type]
