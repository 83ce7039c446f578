"""Each augmented copy of a record is clipped by itself: a record counts as often as it has copies."""

import torch

from .correct import clipped_sum, update, with_noise

SEEN_BY = ("sensitivity", "dirac_canaries")
COPIES = 4


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    copies = torch.cat([x + 0.01 * k for k in range(COPIES)])
    total = clipped_sum(model, copies, y.repeat(COPIES), max_grad_norm)
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)
