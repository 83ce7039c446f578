"""The gradient of the whole lot is clipped, as `torch.nn.utils.clip_grad_norm_` before the step does."""

from .correct import clip, gradient_of, update, with_noise

SEEN_BY = ("sensitivity",)


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = [0 * p for p in model.parameters()]
    if len(x):
        total = clip(gradient_of(model, x, y), max_grad_norm)
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm / expected_batch_size), 1)
