"""Targets that plainly leak: networks that memorised random labels, gradients as they were sent, released copies."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.gradient_leakage.shared_gradients import shared_gradients
from attacks.protocol import Attack, MembershipScores
from attacks.shadows import ShadowSource
from attacks.target import Target
from attacks.transcript import Transcript
from attacks.view import expose
from defenses.architectures import Architecture
from defenses.engine.store import ModelStore
from defenses.engine.training import Job, train
from defenses.recipe import Recipe
from defenses.records import BoolArray, Column, Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD


@pytest.fixture(scope="session")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Target, BoolArray]:
    """The target, and the truth that no attack sees."""
    rng = np.random.default_rng(0)
    columns = tuple(Column(f"feature {place}", (), -5, 5, place, 1) for place in range(20))  # encoded in 0 to 1
    kind = Table(columns, "y", ("p", "q", "r", "s"))

    def rows(count: int) -> Records:
        return Records(rng.random((count, 20), np.float32), rng.integers(0, 4, count), 4, kind)

    pool, outside = rows(240), rows(150)
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [32]}),
        lots=Lots(120, 20, 100),
        learning_rate=0.05,
        optimizer=SGD(0.9),
    )
    folder: Path = tmp_path_factory.mktemp("models")
    store = ModelStore(folder)
    job = Job(recipe, NoDefense(), pool)
    included = rng.random(240) < 0.5
    model = store.train(job, included[None], [99], device="cpu").one(0)
    shadows = ShadowSource(job, store, population=outside, device="cpu")
    return Target(model, pool, "digest", population=outside, shadows=shadows), included


@pytest.fixture
def auc_on_leaky(leaky: tuple[Target, BoolArray]) -> Callable[[Attack], float]:
    """Return the AUC of an attack on membership against the network that memorised its records."""

    def measured(attack: Attack) -> float:
        target, included = leaky
        claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(1))
        assert isinstance(claim, MembershipScores)
        return float(roc_auc_score(included, claim.scores))

    return measured


COLOUR = Column("colour", ("red", "green", "blue"), 0, 1, 6, 3)
NUMBERS = tuple(Column(name, (), 0, 1, place, 1) for place, name in enumerate("abcdef"))


def _disclosing_all(records: Records, outside: Records, architecture: Architecture, *, epochs: int) -> Target:
    """Train on half of the records, let eight of that half send gradients, and release copies of all of it."""
    count = len(records)
    recipe = Recipe(architecture=architecture, lots=Lots(count // 2, 20, epochs), learning_rate=0.1, optimizer=SGD(0.9))
    included = np.arange(count) % 2 == 0
    model = train(Job(recipe, NoDefense(), records), included[None], [1], device="cpu").one(0)
    victims = np.flatnonzero(included)[:8]
    start = architecture.build(records.shape, records.classes, seed=3)
    x, y = torch.from_numpy(records.x[victims])[:, None], torch.from_numpy(records.y[victims])[:, None]
    sent = Transcript(gradients=shared_gradients(start, x, y))
    return Target(
        model=model,
        candidates=records,
        digest="d",
        population=outside,
        transcript=sent,
        synthetic=records.take(included),
    )


@pytest.fixture(scope="session")
def disclosing() -> list[Target]:
    """Targets that disclose everything but a recipe: of tables, of images, and a linear one; even records are in."""
    rng = np.random.default_rng(2)

    def rows(count: int) -> Records:
        colour = np.eye(3)[rng.integers(0, 3, count)]
        x = np.column_stack([rng.random((count, 6)), colour]).astype(np.float32)
        return Records(x, rng.integers(0, 4, count), 4, Table((*NUMBERS, COLOUR), "y", ("p", "q", "r", "s")))

    def images(count: int) -> Records:
        y = rng.integers(0, 2, count)
        x = np.clip(0.3 + 0.4 * y[:, None, None, None] + 0.2 * rng.normal(size=(count, 1, 8, 8)), 0, 1)
        return Records(x.astype(np.float32), y, 2, Image())

    return [
        _disclosing_all(rows(200), rows(120), Architecture("mlp", {"hidden": [32]}), epochs=60),
        _disclosing_all(images(120), images(60), Architecture("mlp", {"hidden": [16]}), epochs=5),
        _disclosing_all(rows(200), rows(120), Architecture("mlp", {"hidden": []}), epochs=20),
    ]
