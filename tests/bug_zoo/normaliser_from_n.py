"""The constant that sums are divided by is int(n * q) of the private n: one record more or less rescales all.

As in Opacus 1.6, whose PrivacyEngine computes its expected batch size from the length of the data set.
"""

import torch

from .correct import poisson_lot, train_step

SEEN_BY = ("normaliser",)


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    divisor = int(len(x) * sampling_probability)
    for _ in range(steps):
        train_step(
            model,
            optimizer,
            *poisson_lot(x, y, sampling_probability),
            max_grad_norm=max_grad_norm,
            noise_multiplier=noise_multiplier,
            expected_batch_size=divisor,
        )
