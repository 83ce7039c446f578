"""Noise scaled down to the average's sensitivity, and then divided by the batch size once more with the sum."""

from .correct import clipped_sum, update, with_noise

SEEN_BY = ("noise_scale", "dirac_canaries")


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = clipped_sum(model, x, y, max_grad_norm)
    std = noise_multiplier * max_grad_norm / expected_batch_size
    update(model, optimizer, with_noise(total, std), expected_batch_size)
