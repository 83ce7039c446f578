"""Nadam takes torch's steps when its condition is off, and reads nothing but gradients when it is on."""

from collections.abc import Iterator

import pytest
import torch

from defenses.nadam import Nadam
from defenses.updates import Tensors, UpdateRule

SHAPES = {"a": (3, 4), "b": (5,), "c": ()}
RATES = torch.tensor([0.01, 0.1, 0.5], dtype=torch.float64)


def drawn(generator: torch.Generator) -> Tensors:
    return {
        name: torch.randn(len(RATES), *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def walked(rule: UpdateRule, gradients: list[Tensors], start: Tensors) -> tuple[Tensors, Tensors]:
    parameters, state = start, rule.initial(start)
    for each in gradients:
        parameters, state = rule.step(parameters, each, state, RATES)
    return parameters, state


@pytest.fixture
def start() -> Tensors:
    return drawn(torch.Generator().manual_seed(0))


@pytest.fixture
def gradients() -> list[Tensors]:
    generator = torch.Generator().manual_seed(1)
    return [{name: value + 0.3 for name, value in drawn(generator).items()} for _ in range(50)]


@pytest.fixture
def torch_counts_in_float64() -> Iterator[None]:
    """torch.optim keeps its product of momenta in the default type, whatever the type of the parameters."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("torch_counts_in_float64")
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("beta1", "beta2", "stabilizer"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3)])
def test_without_the_condition_it_is_torchs(
    start: Tensors, gradients: list[Tensors], beta1: float, beta2: float, stabilizer: float, weight_decay: float
) -> None:
    rule = Nadam(beta1=beta1, beta2=beta2, stabilizer=stabilizer, weight_decay=weight_decay)
    found, _ = walked(rule, gradients, start)
    for k, rate in enumerate(RATES.tolist()):
        theirs = {name: value[k].clone().requires_grad_() for name, value in start.items()}
        optimizer = torch.optim.NAdam(
            theirs.values(), lr=rate, betas=(beta1, beta2), eps=stabilizer, weight_decay=weight_decay
        )
        for each in gradients:
            for name, value in theirs.items():
                value.grad = each[name][k].clone()
            optimizer.step()
        for name, value in theirs.items():
            torch.testing.assert_close(found[name][k], value.detach(), rtol=1e-12, atol=1e-13)


def test_smoothing_of_beta1_is_no_smoothing(start: Tensors, gradients: list[Tensors]) -> None:
    plain, _ = walked(Nadam(), gradients, start)
    same, _ = walked(Nadam(smoothing=0.9), gradients, start)
    smooth, _ = walked(Nadam(smoothing=0.99), gradients, start)
    for name, value in plain.items():
        assert torch.equal(value, same[name])
        assert not torch.allclose(value, smooth[name])


def test_the_condition_holds_where_the_gradient_opposes_its_mean(start: Tensors) -> None:
    ones = {name: torch.ones_like(value) for name, value in start.items()}
    rule = Nadam(smoothing=0.99)
    # All models saw the same gradient once; then that of "a" turns round in model 1, and that of "b" in model 2.
    turned = {name: value.clone() for name, value in ones.items()}
    turned["a"][1] *= -1
    turned["b"][2] *= -1
    _, state = walked(rule, [ones, turned], start)
    for name, opposed in (("a", 1), ("b", 2), ("c", None)):
        for k in range(3):
            mean = state[f"first.{name}"][k]
            decay = 0.99 if k == opposed else 0.9
            sign = -1 if k == opposed else 1
            torch.testing.assert_close(mean, torch.full_like(mean, decay * 0.1 + (1 - decay) * sign))
            # Bias is corrected with the decays that were used: the product of both steps' momenta.
            momenta = [d * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t, d in ((1, 0.9), (2, decay))]
            assert float(state[f"product.{name}"][k]) == pytest.approx(momenta[0] * momenta[1], rel=1e-12)


def test_it_reads_gradients_alone(start: Tensors, gradients: list[Tensors]) -> None:
    # A condition on the loss, or on anything else than the released gradients, would see where the parameters are.
    elsewhere = {name: value + 7.0 for name, value in start.items()}
    here, _ = walked(Nadam(smoothing=0.99), gradients, start)
    there, _ = walked(Nadam(smoothing=0.99), gradients, elsewhere)
    for name, value in here.items():
        torch.testing.assert_close(value - start[name], there[name] - elsewhere[name])


@pytest.mark.parametrize("smoothing", [None, 0.99])
def test_models_do_not_see_each_other(start: Tensors, gradients: list[Tensors], smoothing: float | None) -> None:
    rule = Nadam(smoothing=smoothing)
    together, _ = walked(rule, gradients, start)
    for k in range(len(RATES)):
        parameters = {name: value[k : k + 1] for name, value in start.items()}
        state = rule.initial(parameters)
        for each in gradients:
            own = {name: value[k : k + 1] for name, value in each.items()}
            parameters, state = rule.step(parameters, own, state, RATES[k : k + 1])
        for name, value in parameters.items():
            torch.testing.assert_close(value[0], together[name][k], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("smoothing", 0.5),
        ("smoothing", 1.0),
        ("smoothing", float("nan")),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("stabilizer", 0.0),
        ("weight_decay", -1.0),
    ],
)
def test_what_is_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .*must be"):
        Nadam(**{field: value})
