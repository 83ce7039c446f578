"""Gradients are accumulated over micro-batches and each micro-batch is clipped, instead of each record.

Two records of a micro-batch that oppose each other turn its clipped gradient round: twice the sensitivity.
"""

import torch

from .correct import clip, gradient_of, update, with_noise

SEEN_BY = ("sensitivity",)
MICRO_BATCH = 4


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = [torch.zeros_like(p) for p in model.parameters()]
    for start in range(0, len(x), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        for t, g in zip(total, clip(gradient_of(model, x[part], y[part]), max_grad_norm), strict=True):
            t += g
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)
