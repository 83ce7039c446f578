"""A quarter of the private records is held back, and training stops when the loss on it no longer falls."""

import torch
import torch.nn.functional as F

from .correct import poisson_lot, train_step

SEEN_BY = ("data_dependence",)


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    kept = len(x) - len(x) // 4
    best = float("inf")
    for _ in range(steps):
        train_step(
            model,
            optimizer,
            *poisson_lot(x[:kept], y[:kept], sampling_probability),
            max_grad_norm=max_grad_norm,
            noise_multiplier=noise_multiplier,
            expected_batch_size=expected_batch_size,
        )
        with torch.no_grad():
            loss = float(F.cross_entropy(model(x[kept:]), y[kept:])) if kept < len(x) else best
        if loss >= best:
            break
        best = loss
