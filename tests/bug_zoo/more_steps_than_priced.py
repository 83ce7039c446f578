"""Steps are priced, epochs are run: the last epoch goes to its end."""

import math

import torch

from .correct import poisson_lot, train_step

SEEN_BY = ("steps",)


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    steps_per_epoch = math.ceil(len(x) / expected_batch_size)
    for _ in range(math.ceil(steps / steps_per_epoch)):
        for _ in range(steps_per_epoch):
            train_step(
                model,
                optimizer,
                *poisson_lot(x, y, sampling_probability),
                max_grad_norm=max_grad_norm,
                noise_multiplier=noise_multiplier,
                expected_batch_size=expected_batch_size,
            )
