"""The noise of a training is drawn once, before the loop: it differs between runs, but not between steps."""

import torch

from .correct import clipped_sum, poisson_lot, update

SEEN_BY = ("noise_repeats",)


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    noise = [noise_multiplier * max_grad_norm * torch.randn_like(p) for p in model.parameters()]
    for _ in range(steps):
        total = clipped_sum(model, *poisson_lot(x, y, sampling_probability), max_grad_norm)
        update(model, optimizer, [t + n for t, n in zip(total, noise, strict=True)], expected_batch_size)
