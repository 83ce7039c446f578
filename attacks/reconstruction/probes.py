"""What everybody knows of a target's records, as numbers: their range, and records drawn from it."""

import torch
from torch import Tensor, nn

from attacks.threat_model import Facts
from defenses.records import Image

_COUNT = 32


def public_range(facts: Facts) -> tuple[float, float]:
    """Return the least and the greatest value of a feature; columns of tables are encoded in 0 to 1."""
    return (facts.kind.low, facts.kind.high) if isinstance(facts.kind, Image) else (0.0, 1.0)


def probes(facts: Facts, model: nn.Module) -> Tensor:
    """Return records (32, *shape), uniform over the public range, always the same, in the type of a model's weights."""
    low, high = public_range(facts)
    drawn = torch.rand(_COUNT, *facts.shape, generator=torch.Generator().manual_seed(0))
    return (low + (high - low) * drawn).to(next(model.parameters()))
