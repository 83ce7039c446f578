"""DP-SGD written by hand, and the adapter that `auditor debug-dp` wants: here the function has the form already.

Run in this folder: auditor debug-dp mine:train_step
"""

import torch
import torch.nn.functional as F


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    """Clip each record's gradient, add noise to the sum, divide by a public constant."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        gradient = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradient))
        factor = (max_grad_norm / (norm + 1e-12)).clamp(max=1.0)
        for t, g in zip(total, gradient, strict=True):
            t += factor * g
    for p, t in zip(parameters, total, strict=True):
        p.grad = (t + noise_multiplier * max_grad_norm * torch.randn_like(t)) / expected_batch_size
    optimizer.step()
    optimizer.zero_grad()
