"""DP-SGD as it should be, in plain PyTorch: the parts that the broken ones take from here, and both forms of it."""

import torch
import torch.nn.functional as F


def gradient_of(model, x, y):
    """The gradient of the mean loss of some records."""
    return torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))


def clip(gradient, max_grad_norm):
    norm = torch.sqrt(sum(g.square().sum() for g in gradient))
    factor = (max_grad_norm / (norm + 1e-12)).clamp(max=1.0)
    return [factor * g for g in gradient]


def clipped_sum(model, x, y, max_grad_norm):
    total = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        for t, g in zip(total, clip(gradient_of(model, x[i : i + 1], y[i : i + 1]), max_grad_norm), strict=True):
            t += g
    return total


def with_noise(total, std):
    return [t + std * torch.randn_like(t) for t in total]


def update(model, optimizer, total, divisor):
    for p, t in zip(model.parameters(), total, strict=True):
        p.grad = t / divisor
    optimizer.step()
    optimizer.zero_grad()


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = clipped_sum(model, x, y, max_grad_norm)
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)


def poisson_lot(x, y, sampling_probability):
    lot = torch.rand(len(x)) < sampling_probability
    return x[lot], y[lot]


def train(
    model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, noise_multiplier
):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(steps):
        lot_x, lot_y = poisson_lot(x, y, sampling_probability)
        train_step(
            model,
            optimizer,
            lot_x,
            lot_y,
            max_grad_norm=max_grad_norm,
            noise_multiplier=noise_multiplier,
            expected_batch_size=expected_batch_size,
        )
