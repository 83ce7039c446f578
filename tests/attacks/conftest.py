"""A target that plainly leaks: a network that memorised random labels, with a scheme-free recipe and shadows."""

from pathlib import Path

import numpy as np
import pytest

from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from defenses.architectures import Architecture
from defenses.recipe import Recipe
from defenses.records import BoolArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.store import ModelStore
from defenses.training import Job
from defenses.updates import SGD


@pytest.fixture(scope="session")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Target, BoolArray]:
    """The target, and the truth that no attack sees."""
    rng = np.random.default_rng(0)
    kind = Table((), "y", ())
    pool = Records(rng.normal(size=(240, 20)).astype(np.float32), rng.integers(0, 4, 240), 4, kind)
    outside = Records(rng.normal(size=(150, 20)).astype(np.float32), rng.integers(0, 4, 150), 4, kind)
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [32]}),
        lots=Lots(120, 20, 40),
        learning_rate=0.1,
        optimizer=SGD(0.9),
    )
    folder: Path = tmp_path_factory.mktemp("models")
    store = ModelStore(folder)
    job = Job(recipe, NoDefense(), pool)
    included = rng.random(240) < 0.5
    model = store.train(job, included[None], [99], device="cpu").one(0)
    shadows = ShadowSource(job, store, population=outside, device="cpu")
    return Target(model, pool, "digest", population=outside, shadows=shadows), included
