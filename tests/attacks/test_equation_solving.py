"""Equation solving against scikit-learn's logistic regression, planted non-linearity, and targets that saturate."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.extraction.equation_solving import EquationSolving
from attacks.protocol import ExtractedModel
from attacks.target import Target
from attacks.view import View, expose
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.recipe import Recipe
from defenses.records import Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense

TABLE = Table((), "y", ())


class Linear(nn.Module):
    """Logits of given weights (C, d) and biases (C,), and whatever `more` adds to the first; keeps what it is asked."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, more: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weights, self.bias = (nn.Parameter(torch.from_numpy(np.asarray(part))) for part in (weights, bias))
        self.more = more
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x)
        logits = x.flatten(1) @ self.weights.T + self.bias
        if self.more is None:
            return logits
        return torch.cat([logits[:, :1] + self.more(x.flatten(1))[:, None], logits[:, 1:]], dim=1)


def attack(model: nn.Module, records: Records, **settings: float) -> tuple[ExtractedModel, View]:
    found = EquationSolving(**settings)  # type: ignore[arg-type]
    view = expose(Target(model, records, "d"), found.requires)
    return found.run(view, rng=np.random.default_rng(0)), view


def drawn(shape: tuple[int, ...], classes: int, dtype: type = np.float32, *, size: float = 1.0) -> Linear:
    rng = np.random.default_rng(1)
    return Linear(
        size * rng.normal(size=(classes, int(np.prod(shape)))).astype(dtype), rng.normal(size=classes).astype(dtype)
    )


def blank(shape: tuple[int, ...], classes: int, kind: Image | Table = TABLE) -> Records:
    return Records(np.zeros((1, *shape), np.float32), np.zeros(1, np.int64), classes, kind)


def difference(one: nn.Module, other: nn.Module, x: np.ndarray) -> float:
    """Largest difference between centred logits: the common shift is invisible in probabilities."""
    left, right = (module_logits(model, x) for model in (one, other))
    return float(np.abs((left - left.mean(1, keepdims=True)) - (right - right.mean(1, keepdims=True))).max())


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-3), (torch.float64, 1e-8)])
@pytest.mark.parametrize("load", [load_digits, load_breast_cancer, load_iris])
def test_logistic_regression_is_copied_exactly(
    load: Callable[..., tuple[np.ndarray, np.ndarray]], dtype: torch.dtype, allowed: float
) -> None:
    x, y = load(return_X_y=True)
    x = ((x - x.min(0)) / np.maximum(np.ptp(x, axis=0), 1)).astype(np.float32)
    records = Records(x, y.astype(np.int64), int(y.max()) + 1, TABLE)
    fitted = LogisticRegression(C=100, max_iter=3000).fit(x, y)
    weights, bias = fitted.coef_, fitted.intercept_
    if records.classes == 2:  # scikit-learn keeps one row for two classes
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    target = Linear(weights, bias).to(dtype)
    claim, view = attack(target, records)
    (stolen,) = claim.copies
    assert difference(stolen.model, target, x) < allowed
    assert np.array_equal(module_logits(stolen.model, x).argmax(1), module_logits(target, x).argmax(1))
    said = np.exp(module_logits(stolen.model, x))
    assert np.allclose(said / said.sum(1, keepdims=True), fitted.predict_proba(x), atol=1e-4)
    assert stolen.queries == view.queries == x.shape[1] + 1 + 24
    assert claim.without_target is None


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1,), TABLE),
        ((2,), TABLE),
        ((7,), TABLE),
        ((8,), TABLE),
        ((3, 5, 4), Image(-1, 1)),
        ((1, 20, 30), Image(0, 255)),
    ],
)
def test_any_number_of_features_and_any_range(shape: tuple[int, ...], kind: Image | Table) -> None:
    low, high = (kind.low, kind.high) if isinstance(kind, Image) else (0, 1)
    target = drawn(shape, 3, np.float64, size=1 / (high - low))
    claim, _ = attack(target, blank(shape, 3, kind))
    asked = torch.cat(target.asked)
    assert asked.min() >= low
    assert asked.max() <= high
    x = np.random.default_rng(2).uniform(low, high, (50, *shape)).astype(np.float32)
    assert difference(claim.copies[0].model, target, x) < 1e-8
    assert claim.copies[0].queries == np.prod(shape) + 1 + 24


def test_the_target_on_real_images(data_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from auditor.datasets import load
    records = load("mnist", data_dir=data_dir).take(np.arange(2000))
    linear = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=Lots(1000, 50, 5), learning_rate=0.1)
    included = (np.arange(2000) < 1000)[None]
    target = train(Job(linear, NoDefense(), records), included, [1], device="cpu").one(0)
    claim, _ = attack(target, records)
    copied = claim.copies[0].model
    assert difference(copied, target, records.x) < 1e-3
    assert (module_logits(copied, records.x).argmax(1) == module_logits(target, records.x).argmax(1)).all()
    assert "785 equations" in claim.notes[0]


def test_networks_are_refused_after_a_few_queries() -> None:
    model = Architecture("mlp", {"hidden": [16]}).build((20,), 3, seed=1)
    found = EquationSolving()
    view = expose(Target(model, blank((20,), 3), "d"), found.requires)
    with pytest.raises(NotApplicableError, match="not linear"):
        found.run(view, rng=np.random.default_rng(0))
    assert view.queries == 24


@pytest.mark.parametrize(
    ("more", "seen_by"),
    [
        (lambda x: 0.02 * torch.tanh(3 * x[:, 0] + x[:, 1]), "the mean of the ends"),
        (lambda x: 0.02 * (x.sum(1) - 10).relu(), "the mean of the ends"),
        # Nothing at 0, 0.5 and 1, where the lines are asked about: only the solution can tell.
        (lambda x: torch.sin(2 * torch.pi * x[:, 3]), "the solution"),
    ],
)
def test_little_that_is_not_linear_is_found(more: Callable[[Tensor], Tensor], seen_by: str) -> None:
    linear = drawn((20,), 3)
    planted = Linear(linear.weights.detach().numpy(), linear.bias.detach().numpy(), more)
    with pytest.raises(NotApplicableError, match=f"not linear.*{seen_by}"):
        attack(planted, blank((20,), 3))


def test_rounded_answers_are_refused() -> None:
    class Rounded(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(super().forward(x), dim=1).mul(1000).round().clamp(min=0.5).log()

    linear = drawn((20,), 3, size=0.3)
    rounded = Rounded(linear.weights.detach().numpy(), linear.bias.detach().numpy())
    with pytest.raises(NotApplicableError, match="not linear"):
        attack(rounded, blank((20,), 3))


def test_a_steep_target_is_asked_nearer_to_the_middle() -> None:
    weights = 1000 * np.random.default_rng(1).normal(size=(4, 12))
    target = Linear(weights, -weights.sum(axis=1) / 2)
    claim, _ = attack(target, blank((12,), 4))
    x = np.random.default_rng(2).random((50, 12)).astype(np.float32)
    assert np.ptp(module_logits(target, x)) > 2000  # most answers are 0 or 1
    assert difference(claim.copies[0].model, target, x) < 1e-8
    assert claim.copies[0].queries > 12 + 1 + 24


def test_a_constant_target_is_a_linear_one() -> None:
    target = Linear(np.zeros((3, 5)), np.array([1.0, 2.0, -4.0]))
    claim, _ = attack(target, blank((5,), 3))
    x = np.random.default_rng(2).random((9, 5)).astype(np.float32)
    assert difference(claim.copies[0].model, target, x) < 1e-12


@pytest.mark.parametrize(("bias", "message"), [(np.nan, "not finite"), (-1e6, "probability of 0")])
def test_targets_without_log_ratios(bias: float, message: str) -> None:
    with pytest.raises(NotApplicableError, match=message):
        attack(Linear(np.zeros((3, 5)), np.array([1.0, 2.0, bias])), blank((5,), 3))


def test_it_sees_probabilities_and_no_candidates() -> None:
    found = EquationSolving()
    view = expose(Target(drawn((5,), 3), blank((5,), 3), "d"), found.requires)
    assert Capability.LOGITS not in view.access
    with pytest.raises(NotDisclosedError, match="records in question"):
        _ = view.candidates


@pytest.mark.parametrize("settings", [{"lines": 0}, {"tolerance": 0.0}, {"tolerance": 1.0}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        EquationSolving(**settings)  # type: ignore[arg-type]
