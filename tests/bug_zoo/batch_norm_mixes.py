"""Per-example gradients of one batched forward pass, which are none if the network holds BatchNorm.

Differentiating one loss of the batch at a time is sound for every network that keeps records apart.
"""

import torch
import torch.nn.functional as F

from .correct import clip, update, with_noise

SEEN_BY = ("batch_norm",)


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    losses = F.cross_entropy(model(x), y, reduction="none")
    for loss in losses:
        for t, g in zip(total, clip(torch.autograd.grad(loss, parameters, retain_graph=True), max_grad_norm),
                        strict=True):  # fmt: skip
            t += g
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)
