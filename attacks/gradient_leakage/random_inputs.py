"""Records that everybody can draw: uniform over the public range of a target."""

import torch
from torch import Tensor, nn

from attacks.record_spec import RecordSpec

_COUNT = 32


def probes(facts: RecordSpec, model: nn.Module) -> Tensor:
    """Return records (32, *shape), uniform over the public range, always the same, in the type of a model's weights."""
    low, high = facts.value_range
    drawn = torch.rand(_COUNT, *facts.shape, generator=torch.Generator().manual_seed(0))
    return (low + (high - low) * drawn).to(next(model.parameters()))
