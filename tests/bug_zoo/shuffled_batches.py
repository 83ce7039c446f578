"""Epochs over a shuffled DataLoader, priced as if each lot were drawn by Poisson sampling.

The usual loop of PyTorch; most DP-SGD results in papers are trained like this and priced like that.
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from .correct import train_step

SEEN_BY = ("sampler",)


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    loader = DataLoader(TensorDataset(x, y), batch_size=expected_batch_size, shuffle=True)
    done = 0
    while done < steps:
        for lot_x, lot_y in loader:
            train_step(
                model,
                optimizer,
                lot_x,
                lot_y,
                max_grad_norm=max_grad_norm,
                noise_multiplier=noise_multiplier,
                expected_batch_size=expected_batch_size,
            )
            done += 1
            if done == steps:
                break
