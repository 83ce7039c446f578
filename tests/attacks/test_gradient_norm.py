"""Gradient norms against one backward pass per record, on networks with and without a closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from attacks.capabilities import Capability
from attacks.membership import gradient_norm
from attacks.membership.gradient_norm import GradientNorm, gradient_norms
from attacks.target import Target
from attacks.threat_model import ThreatModel
from attacks.view import expose
from defenses.architectures import Architecture
from defenses.errors import NotDisclosedError
from defenses.records import BoolArray

SHAPE = (3, 8, 8)


def normalised() -> nn.Module:
    """A network with BatchNorm whose running statistics are not those of any batch."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


NETWORKS = {
    "mlp": lambda: Architecture("mlp", {"hidden": [16, 8]}).build(SHAPE, 3, seed=1),
    "cnn": lambda: Architecture("cnn").build(SHAPE, 3, seed=1),
    "batch norm": normalised,
}


def one_by_one(module: nn.Module, x: np.ndarray, y: np.ndarray, order: int) -> np.ndarray:
    found = []
    for record, label in zip(torch.from_numpy(x).double(), torch.from_numpy(y), strict=True):
        loss = F.cross_entropy(module(record[None]), label[None])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        found.append(float(torch.linalg.vector_norm(torch.cat([part.flatten() for part in gradients]), order)))
    return np.array(found)


def records(count: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *SHAPE)).astype(np.float32), rng.integers(0, 3, count)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_one_backward_pass_per_record(name: str, order: int) -> None:
    x, y = records()
    expected = one_by_one(NETWORKS[name]().double().eval(), x, y, order)
    assert np.allclose(gradient_norms(NETWORKS[name](), x, y, order=order), expected, rtol=1e-9)


def test_batches_are_bounded_by_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = records()
    module = NETWORKS["batch norm"]()  # materialises every gradient, so that its numbers are known
    whole = gradient_norms(NETWORKS["batch norm"](), x, y)
    monkeypatch.setattr(gradient_norm, "_BATCH_BYTES", 8 * 4 * sum(value.numel() for value in module.parameters()))
    seen: list[float] = []
    parts = gradient_norms(module, x, y, on_progress=lambda progress: seen.append(progress.done))
    assert seen == [4, 8, 9]
    assert np.allclose(parts, whole, rtol=1e-12)


def test_the_target_is_left_as_it_was(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    model = NETWORKS["batch norm"]().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = records()
    candidates = replace(target.candidates, x=x, y=y, classes=3)
    view = expose(replace(target, model=model, candidates=candidates), GradientNorm().requires)
    GradientNorm().run(view, rng=np.random.default_rng(0))
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("order", [1, 2])
def test_it_finds_members(order: int, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    attack = GradientNorm(order=order)
    scores = attack.run(expose(target, attack.requires), rng=np.random.default_rng(0)).scores
    assert roc_auc_score(included, scores) > 0.9


def test_records_whose_gradient_underflows_keep_their_order(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    model = nn.Linear(1, 2)
    nn.init.constant_(model.weight, 0.0)
    model.weight.data[0] = 1.0
    nn.init.zeros_(model.bias)
    margins = np.array([[5.0], [300.0], [2000.0], [50.0]], dtype=np.float32)
    candidates = replace(target.candidates, x=margins, y=np.zeros(4, dtype=np.int64), classes=2)
    attack = GradientNorm()
    scores = attack.run(
        expose(replace(target, model=model, candidates=candidates), attack.requires), rng=np.random.default_rng(0)
    ).scores
    assert scores.argsort().tolist() == [0, 3, 1, 2]
    assert np.isfinite(scores).all()


def test_it_needs_the_weights(leaky: tuple[Target, BoolArray]) -> None:
    view = expose(leaky[0], ThreatModel(frozenset({Capability.LOGITS})))
    with pytest.raises(NotDisclosedError, match="weights"):
        GradientNorm().run(view, rng=np.random.default_rng(0))


def test_an_order_that_is_no_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="order is 3"):
        GradientNorm(order=3)
