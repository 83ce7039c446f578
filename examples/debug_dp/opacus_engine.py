"""Opacus's PrivacyEngine as a training function for `auditor debug-dp`.

Run in this folder: auditor debug-dp opacus_engine:train --records 256

The battery finds that its normaliser depends on the records: PrivacyEngine takes the sampling rate from the number of
batches and divides by int(n * rate), so 256 records at batch size 32 are divided by 32 and 257 by 28.
"""

import torch
import torch.nn.functional as F
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    """Train for a number of steps as the tutorial of Opacus does; it chooses its own sampling rate."""
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=learning_rate),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=expected_batch_size),
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
    )
    done = 0
    while done < steps:
        for lot_x, lot_y in loader:
            optimizer.zero_grad()
            F.cross_entropy(private(lot_x), lot_y).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return {name.removeprefix("_module."): value for name, value in private.state_dict().items()}
