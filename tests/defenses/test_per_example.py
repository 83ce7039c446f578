"""Per-example gradients in closed form against `vmap(grad)`, layer by layer and network by network."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses import compiled_functions
from defenses.architectures import Architecture
from defenses.engine import layers
from defenses.engine.per_example import PerExampleGradients
from defenses.gradients import ClippedGaussian
from defenses.updates import Tensors


@dataclass(frozen=True)
class PerParameter(ClippedGaussian):
    """Every parameter clipped by itself, in a norm of either order; what per-layer rules are made of."""

    order: int = 2

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(range(len(names)))


FLAT = ClippedGaussian(0.3, 1.0)
RULES = [FLAT, PerParameter(0.05, 1.0), PerParameter(0.4, 1.0, order=1)]


def naive(module: nn.Module, rule: ClippedGaussian, x: Tensor, y: Tensor, mask: Tensor) -> Tensors:
    """Clip and add example by example, without any of the engine's means."""
    names = [name for name, _ in module.named_parameters()]
    groups = rule.groups(names)
    total = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    for one, label, real in zip(x, y, mask, strict=True):
        if not real:
            continue
        loss = F.cross_entropy(module(one[None]), label[None])
        gradients = dict(zip(names, torch.autograd.grad(loss, list(module.parameters())), strict=True))
        for group in set(groups):
            flat = torch.cat([gradients[n].flatten() for n, g in zip(names, groups, strict=True) if g == group])
            norm = float(torch.linalg.vector_norm(flat, rule.order))
            for name, member in zip(names, groups, strict=True):
                if member == group:
                    total[name] += gradients[name] * min(1.0, rule.max_grad_norm / norm)
    return total


def lot(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.arange(size) % 3, torch.arange(size) != 2


def weights(module: nn.Module) -> Tensors:
    return {name: value.detach() for name, value in module.named_parameters()}


def compare(found: Tensors, expected: Tensors, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-3)
        assert float((found[name] - value).detach().abs().max()) < tolerance * scale, name


def net(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    options = {"vgg": {"width": 0.125}, "mlp": {"hidden": [16, 8]}}.get(name, {})
    shape = (1, 28, 28) if name == "cnn" else (3, 16, 16)
    return Architecture(name, options).build(shape, 3, seed=4), shape


@pytest.mark.parametrize("rule", RULES, ids=["flat", "per parameter", "per parameter, order 1"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "vgg", "resnet"])
def test_shipped_networks_have_a_closed_form_that_is_exact(name: str, rule: ClippedGaussian) -> None:
    module, shape = net(name)
    engine = PerExampleGradients(module, rule, shape)
    assert engine.closed_form
    x, y, mask = lot(shape, torch.float32)
    found, _, finite = engine.sums(weights(module), x, y, mask, {})
    assert bool(finite)
    # The loop is run in float64: in float32 it is itself off by 1e-3, from the norm of 11 million numbers.
    double = lot(shape)
    expected = naive(module.double(), rule, *double)
    flat = [torch.cat([value.double().flatten() for value in part.values()]) for part in (found, expected)]
    assert float((flat[0] - flat[1]).norm()) < 1e-5 * float(flat[1].norm())
    compare(PerExampleGradients(module, rule, shape).sums(weights(module), *double, {})[0], expected, 1e-9)


class Positions(nn.Module):
    """A fully connected layer at many positions, a layer norm over them, and no bias in places."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.project, self.norm = nn.Linear(8, 12, bias=False), nn.LayerNorm(12)
        self.last = nn.Linear(12 * tokens, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.project(x.reshape(len(x), self.tokens, 8)).tanh()).flatten(1))


def convolutions(**changes: object) -> nn.Module:
    given = {"kernel_size": 3, "padding": 1} | changes
    first = nn.Conv2d(4, 8, **given)  # type: ignore[arg-type]
    size = first(torch.zeros(1, 4, 8, 8)).numel()
    return nn.Sequential(first, nn.Tanh(), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(size, 3))


ODD = {
    "many positions": (lambda: Positions(16), (16, 8)),
    "few positions": (lambda: Positions(2), (2, 8)),
    "stride": (lambda: convolutions(stride=2), (4, 8, 8)),
    "dilation": (lambda: convolutions(dilation=2), (4, 8, 8)),
    "grouped": (lambda: convolutions(groups=2), (4, 8, 8)),
    "no bias": (lambda: convolutions(bias=False), (4, 8, 8)),
    "one position": (lambda: convolutions(kernel_size=8, padding=0), (4, 8, 8)),
    "oblong": (lambda: convolutions(kernel_size=(3, 5), padding=(0, 2), stride=(2, 1)), (4, 8, 8)),
}


@pytest.mark.parametrize("gram", [None, True, False], ids=["by cost", "gram", "materialised"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ODD)
def test_every_way_of_every_layer_is_exact(
    name: str, order: int, gram: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gram is not None:
        monkeypatch.setattr(layers, "gram_is_cheaper", lambda *sizes: gram)
    torch.manual_seed(0)
    make, shape = ODD[name]
    module, rule = make().double(), PerParameter(0.1, 1.0, order=order)
    engine = PerExampleGradients(module, rule, shape)
    assert engine.closed_form
    x, y, mask = lot(shape)
    found, _, _ = engine.sums(weights(module), x, y, mask, {})
    compare(found, naive(module, rule, x, y, mask), 1e-10)


def test_stacked_models_get_their_own_gradients() -> None:
    module, shape = net("cnn")
    engine = PerExampleGradients(module.double(), FLAT, shape)
    others = [Architecture("cnn").build(shape, 3, seed=seed, dtype=torch.float64) for seed in (1, 2, 3)]
    x, y, mask = lot((3, *shape))
    stacked = {name: torch.stack([weights(other)[name] for other in others]) for name in weights(module)}
    lots = [(x[:, k], y.roll(k), mask) for k in range(3)]
    together = vmap(lambda p, x, y, m: engine.sums(p, x, y, m, {})[0])(
        stacked, *(torch.stack(part) for part in zip(*lots, strict=True))
    )
    for k, other in enumerate(others):
        compare({name: value[k] for name, value in together.items()}, naive(other, FLAT, *lots[k]), 1e-10)


def test_careful_sums_drop_what_is_not_finite_exactly() -> None:
    module, shape = net("cnn")
    engine = PerExampleGradients(module.double(), FLAT, shape)
    x, y, mask = lot(shape)
    expected, _, _ = engine.sums(weights(module), x, y, mask & (torch.arange(6) != 4), {})
    x[4] = torch.inf
    plain, _, finite = engine.sums(weights(module), x, y, mask, {})
    assert not bool(finite)
    assert not all(bool(value.isfinite().all()) for value in plain.values())
    found, _, _ = engine.sums(weights(module), x, y, mask, {}, careful=True)
    compare(found, expected, 1e-12)


class Twice(nn.Module):
    """One layer used twice: its gradient is not that of one input and one output."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.inner(x).tanh()).tanh())


class Tied(nn.Module):
    """A weight that is also used outside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).tanh() @ self.inner.weight)


class Unknown(nn.Module):
    """Parameters outside any known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.last = nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x * self.scale)


class Unmappable(nn.Module):
    """Looks at values, which `vmap` cannot follow; and has parameters outside any known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.last = nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x * self.scale if float(x.detach().sum()) > 0 else x.tanh() * self.scale)


@pytest.mark.parametrize("kind", [Twice, Tied, Unknown])
def test_what_has_no_closed_form_is_materialised_and_said(
    kind: type[nn.Module], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_functions, "_said", set())
    torch.manual_seed(0)
    module = kind().double()
    with caplog.at_level(logging.WARNING):
        engine = PerExampleGradients(module, FLAT, (5,))
    assert not engine.closed_form
    assert "materialised" in caplog.text
    x, y, mask = lot((5,))
    found, _, _ = engine.sums(weights(module), x, y, mask, {})
    compare(found, naive(module, FLAT, x, y, mask), 1e-12)
    assert functional_call(module, weights(module), (x,)).shape == (6, 3)  # and no hook is left behind


def test_what_cannot_be_mapped_is_taken_one_by_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_functions, "_said", set())
    torch.manual_seed(0)
    module = Unmappable().double()
    with caplog.at_level(logging.WARNING):
        engine = PerExampleGradients(module, FLAT, (5,))
    x, y, mask = lot((5,))
    found, _, _ = engine.sums(weights(module), x, y, mask, {})
    assert "one by one" in caplog.text
    compare(found, naive(module, FLAT, x, y, mask), 1e-12)


def test_the_cheaper_way_is_taken() -> None:
    # Late layers of a VGG: few positions, wide; first layer of a small CNN: many positions, narrow.
    assert layers.gram_is_cheaper(4, 4608, 512)
    assert not layers.gram_is_cheaper(169, 64, 16)


def test_clipping_is_not_the_identity_here() -> None:
    # The comparisons above would be empty if nothing were clipped, or everything by one factor.
    module, shape = net("cnn")
    x, y, _ = lot(shape, torch.float32)
    gradients = vmap(
        grad(lambda p, x, y: F.cross_entropy(functional_call(module, p, (x[None],)), y[None])), in_dims=(None, 0, 0)
    )(weights(module), x, y)
    norms = torch.stack([value.flatten(1).norm(dim=1) for value in gradients.values()]).norm(dim=0)
    assert float(norms.min()) > 0.3
    assert float(norms.max() / norms.min()) > 1.05
