"""Model inversion against a closed form, on digits, and its stop rule."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from attacks.reconstruction.model_inversion import ModelInversion
from attacks.similarity import ncc
from attacks.threat_model import Target, expose
from defenses.architectures import Architecture
from defenses.job import Job
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.training import train
from defenses.updates import SGD


def digits() -> Records:
    x, y = load_digits(return_X_y=True)
    return Records((x / 16).reshape(-1, 1, 8, 8).astype(np.float32), y.astype(np.int64), 10, Image())


def invert(model: torch.nn.Module, records: Records, **settings: float) -> tuple[np.ndarray, str]:
    attack = ModelInversion(**settings)  # type: ignore[arg-type]
    claim = attack.run(expose(Target(model, records, "d"), attack.requires), rng=np.random.default_rng(0))
    return claim.x, claim.notes[0]


class Linear(torch.nn.Module):
    """Two classes apart along one direction."""

    def __init__(self, direction: np.ndarray) -> None:
        super().__init__()
        self.direction = torch.nn.Parameter(torch.from_numpy(direction.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        along = (x - 0.5).flatten(1) @ self.direction
        return torch.stack([along, -along], dim=1)


def test_a_linear_model_is_climbed_along_its_direction() -> None:
    direction = np.random.default_rng(0).normal(size=64)
    records = Records(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), 2, Image())
    x, note = invert(Linear(direction), records, smoothness=0.0, steps=30, step_size=0.01, restarts=2)
    moved = x.reshape(2, 2, 64)[1] - 0.25  # the second shade, a quarter of the range, clips neither way at first
    for one, sign in zip(moved, (1, -1), strict=True):
        free = np.abs(one + 0.25 - 0.5) < 0.4999
        assert np.corrcoef(one[free], sign * direction[free])[0, 1] > 0.99
    assert note.endswith("a confidence of 0.9999 for their class.")


def test_reconstructions_stop_where_they_are_sure() -> None:
    records = Records(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), 2, Image())
    model = Linear(np.ones(64))
    loose, _ = invert(model, records, confidence=0.6, restarts=1)
    tight, _ = invert(model, records, confidence=0.999, restarts=1)
    for x, least in ((loose, 0.6), (tight, 0.999)):
        said = torch.softmax(model(torch.from_numpy(x)), dim=1).detach().numpy()
        assert np.diag(said).min() >= least
    assert loose[0].mean() < tight[0].mean()


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_digits_look_like_their_class(network: str) -> None:
    pool = digits().take(np.arange(900))
    recipe = Recipe(
        architecture=Architecture(network), lots=Lots(900, 60, 30), learning_rate=0.05, optimizer=SGD(momentum=0.9)
    )
    model = train(Job(recipe, NoDefense(), pool), np.ones((1, 900), dtype=bool), [1], device="cpu").one(0)
    x, _ = invert(model, pool)
    means = np.stack([pool.x[pool.y == label].mean(axis=0) for label in range(10)])
    alike = ncc(x, means).reshape(4, 10, 10)
    assert np.mean([np.diag(shade).mean() for shade in alike]) > 0.55
    own = np.diag(alike.mean(axis=0))
    others = (alike.mean(axis=0).sum(axis=1) - own) / 9
    assert (own > others + 0.1).all()


@pytest.mark.parametrize("settings", [{"restarts": 0}, {"steps": 0}, {"confidence": 1.0}, {"step_size": 0.0}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ModelInversion(**settings)  # type: ignore[arg-type]
