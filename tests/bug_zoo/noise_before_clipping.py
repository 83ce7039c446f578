"""Each micro-batch gets its noise before its records' sum is clipped, so the clip takes most of the noise away."""

import torch

from .correct import clip, clipped_sum, update, with_noise

SEEN_BY = ("noise_scale",)
MICRO_BATCH = 4


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = [torch.zeros_like(p) for p in model.parameters()]
    for start in range(0, max(len(x), 1), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        noisy = with_noise(clipped_sum(model, x[part], y[part], max_grad_norm), noise_multiplier * max_grad_norm)
        for t, g in zip(total, clip(noisy, max_grad_norm), strict=True):
            t += g
    update(model, optimizer, total, expected_batch_size)
