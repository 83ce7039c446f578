"""Convolutions as products of matrices against the convolutions themselves."""

from typing import Any

import pytest
import torch
from torch import nn

from attacks.gradient_leakage.unfolded_convolution import unfolded


@pytest.mark.parametrize("settings", [{}, {"padding": (2, 1), "stride": 2}, {"dilation": 2, "bias": False}])
def test_an_unfolded_convolution_is_the_convolution(settings: dict[str, Any]) -> None:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(2, 3, (3, 5), **settings), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Flatten()).double()
    x = torch.rand(4, 2, 13, 12, dtype=torch.float64)
    other = unfolded(net)
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in net.named_parameters()]
    torch.testing.assert_close(other(x), net(x))
    grouped = nn.Conv2d(2, 2, 3, groups=2).double()
    torch.testing.assert_close(unfolded(grouped)(x), grouped(x))
    padded = nn.Conv2d(2, 2, 3, padding="same").double()
    torch.testing.assert_close(unfolded(padded)(x), padded(x))
