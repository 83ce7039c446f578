"""Noise is added to a sum that nobody clipped."""

from .correct import clipped_sum, update, with_noise

SEEN_BY = ("sensitivity", "dirac_canaries")


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = clipped_sum(model, x, y, float("inf"))
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)
