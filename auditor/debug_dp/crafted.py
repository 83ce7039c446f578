"""Models and records whose gradients are known, or as bad as they come."""

import numpy as np
import torch
from torch import Tensor, nn

# A record of this size is clipped at every clipping norm that is used, a small one at none.
HUGE = 1e3
SMALL = 1e-4


def linear(inputs: int) -> nn.Module:
    """Return a linear model at zero without bias: a record's gradient is its own input times (p - y).

    A one-hot record therefore moves one column, a record of zeros moves nothing, and -x moves against x.
    """
    model = nn.Sequential(nn.Linear(inputs, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def network(inputs: int, *, rng: np.random.Generator, normalised: bool = False) -> nn.Module:
    """Return a network with tensors of several sizes, of which one alone may lack noise.

    Args:
        inputs: Size of a record.
        rng: Draws the weights; nothing is left to torch's global generator.
        normalised: Whether to put BatchNorm in, which mixes the records of a lot.
    """
    between = [nn.BatchNorm1d(32)] if normalised else []
    model = nn.Sequential(nn.Linear(inputs, 32), *between, nn.Tanh(), nn.Linear(32, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                drawn = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(parameter.shape[1])
                parameter.copy_(torch.from_numpy(drawn))
    return model


def bare(inputs: int, *, rng: np.random.Generator) -> nn.Module:
    """Return a network of two tensors in which small records have small gradients everywhere: it has no biases."""
    model = nn.Sequential(nn.Linear(inputs, 32, bias=False), nn.Linear(32, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(parameter.shape[1])
            parameter.copy_(torch.from_numpy(drawn))
    return model


def natural(count: int, inputs: int, *, rng: np.random.Generator, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return ordinary records (count, inputs) with their labels (count,): two noisy, separable clusters."""
    y = rng.integers(0, 2, count)
    center = np.ones(inputs) / np.sqrt(inputs)
    x = rng.standard_normal((count, inputs)) + 4 * (2 * y[:, None] - 1) * center
    return torch.from_numpy(scale * x).float(), torch.from_numpy(y).long()


def one_hot(count: int, *, scale: float = HUGE) -> tuple[Tensor, Tensor]:
    """Return records (count, count) of which each has a column of a linear model to itself."""
    return scale * torch.eye(count), torch.zeros(count, dtype=torch.long)


def joined(x: Tensor, y: Tensor, record: Tensor, label: int, *, first: bool = False) -> tuple[Tensor, Tensor]:
    """Return records with one more at the end, or at the beginning."""
    more = record[None].to(x), torch.tensor([label])
    parts = [(more[0], x), (more[1], y)] if first else [(x, more[0]), (y, more[1])]
    return torch.cat(parts[0]), torch.cat(parts[1])
