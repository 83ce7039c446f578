"""The clipping norm is the median of the lot's raw gradient norms, which are private: the noise tells it to all."""

import torch

from .correct import clipped_sum, gradient_of, update, with_noise

SEEN_BY = ("noise_scale", "sensitivity")


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    norms = [
        torch.sqrt(sum(g.square().sum() for g in gradient_of(model, x[i : i + 1], y[i : i + 1]))) for i in range(len(x))
    ]
    threshold = float(torch.stack(norms).median()) if norms else max_grad_norm
    total = clipped_sum(model, x, y, threshold)
    update(model, optimizer, with_noise(total, noise_multiplier * threshold), expected_batch_size)
