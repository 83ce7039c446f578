"""Networks by name: the same seed gives the same weights, and global randomness is left alone."""

import pytest
import torch
from torch import nn

from defenses.architectures import NAMES, Architecture
from defenses.errors import PlanError


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_logits_have_their_shape_and_no_layer_mixes_records(name: str, shape: tuple[int, ...]) -> None:
    options = {"vgg": {"width": 0.125}}.get(name, {})
    module = Architecture(name, options).build(shape, 5, seed=1).train()
    x = torch.randn(3, *shape)
    with torch.no_grad():
        together, alone = module(x), torch.cat([module(one[None]) for one in x])
    assert together.shape == (3, 5)
    assert torch.allclose(together, alone, atol=1e-4)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def test_the_small_network_is_that_of_tramer_and_boneh() -> None:
    module = Architecture("cnn").build((1, 28, 28), 10, seed=1)
    assert sum(parameter.numel() for parameter in module.parameters()) == 26_010


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = Architecture("mlp").build((4,), 2, seed=1)
    assert torch.equal(torch.rand(3), expected)  # global state as it was
    torch.manual_seed(99)
    same, other = Architecture("mlp").build((4,), 2, seed=1), Architecture("mlp").build((4,), 2, seed=2)
    weights = [next(module.parameters()) for module in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mpl", {}, "mpl.*unknown"),
        ("cnn", {}, "use mlp for flat records"),
        ("mlp", {"hiden": [3]}, "hiden"),
        ("vgg", {"depth": 12}, "12"),
        ("nowhere.at:all", {}, "cannot be imported"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(name: str, options: dict[str, object], words: str) -> None:
    shape = (4,) if name == "cnn" else (1, 8, 8)
    with pytest.raises(PlanError, match=words):
        Architecture(name, options, allow_code=True).build(shape, 2, seed=0)
