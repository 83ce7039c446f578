"""Model inversion against a closed form, on digits, and its stop rule."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from attacks.reconstruction.model_inversion import ModelInversion, rougher
from attacks.record_spec import RecordSpec
from attacks.similarity import ncc
from attacks.target import Target
from attacks.view import expose
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.errors import NotApplicableError
from defenses.recipe import Recipe
from defenses.records import Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
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


class Deaf(torch.nn.Module):
    """Two classes of which it is always equally sure, whatever the record."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(len(x), 2)


@pytest.mark.parametrize("model", [Deaf(), Linear(np.zeros(64))], ids=["ignores records", "weights of zero"])
def test_a_model_whose_answers_do_not_depend_on_the_record_is_not_inverted(model: torch.nn.Module) -> None:
    records = Records(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), 2, Image())
    with pytest.raises(NotApplicableError, match="answers change with the record"):
        invert(model, records, steps=5)


def test_reconstructions_stop_where_they_are_sure() -> None:
    records = Records(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), 2, Image())
    model = Linear(np.ones(64))
    loose, _ = invert(model, records, confidence=0.6, restarts=1, early_stop=True)
    tight, _ = invert(model, records, confidence=0.999, restarts=1, early_stop=True)
    whole, _ = invert(model, records, confidence=0.6, restarts=1)
    for x, least in ((loose, 0.6), (tight, 0.999)):
        said = torch.softmax(model(torch.from_numpy(x)), dim=1).detach().numpy()
        assert np.diag(said).min() >= least
    assert loose[0].mean() < tight[0].mean() < whole[0].mean()


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
    assert np.mean([np.diag(shade).mean() for shade in alike]) > 0.6
    own = np.diag(alike.mean(axis=0))
    others = (alike.mean(axis=0).sum(axis=1) - own) / 9
    assert (own > others + 0.1).all()


class Bounded(torch.nn.Module):
    """Two classes whose logits are bounded, so that the target is never surer than sigmoid(6) = 0.9975."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        along = 3 * torch.tanh(self.gain * (x - 0.5).flatten(1).sum(1))
        return torch.stack([along, -along], dim=1)


def test_what_is_out_of_reach_is_said_by_class() -> None:
    records = Records(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1]), 2, Image())
    attack = ModelInversion(restarts=2)
    claim = attack.run(expose(Target(Bounded(), records, "d"), attack.requires), rng=np.random.default_rng(0))
    assert claim.notes == (
        "0 of 4 reconstructions reached a confidence of 0.9999 for their class.",
        "None reached it for class 0 (0.997527), 1 (0.997527), their best confidence in brackets; 4 that fell short "
        "had stopped rising.",
    )
    easy = ModelInversion(restarts=2, confidence=0.99)
    claim = easy.run(expose(Target(Bounded(), records, "d"), attack.requires), rng=np.random.default_rng(0))
    assert claim.notes == ("4 of 4 reconstructions reached a confidence of 0.99 for their class.",)


def test_the_pull_to_smoothness_is_the_slope_of_total_variation() -> None:
    x = torch.rand(3, 2, 8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    variation = x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum()
    (slope,) = torch.autograd.grad(variation, x)
    wanted = slope / slope.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(rougher(x.detach(), RecordSpec((2, 8, 7), 2, Image())), wanted)
    assert not rougher(torch.ones(2, 1, 8, 8), RecordSpec((1, 8, 8), 2, Image())).any()
    assert not rougher(torch.rand(2, 5), RecordSpec((5,), 2, Table((), "y", ()))).any()


@pytest.mark.parametrize(
    "settings",
    [{"restarts": 0}, {"steps": 0}, {"copies": 0}, {"confidence": 1.0}, {"step_size": 0.0}, {"noise": -1.0},
     {"smoothness": -1.0}],
)  # fmt: skip
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ModelInversion(**settings)  # type: ignore[arg-type]
