"""Noise of standard deviation noise_multiplier, not noise_multiplier * max_grad_norm.

Right as long as max_grad_norm is 1, which is why it lives long.
"""

from .correct import clipped_sum, update, with_noise

SEEN_BY = ("noise_scale", "dirac_canaries")


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = clipped_sum(model, x, y, max_grad_norm)
    update(model, optimizer, with_noise(total, noise_multiplier), expected_batch_size)
