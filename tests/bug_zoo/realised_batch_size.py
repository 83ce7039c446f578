"""Sum and noise are divided by the number of records that happen to be in the lot.

Found in published DP-SGD code whose loss is a mean over the batch.
"""

from .correct import clipped_sum, update, with_noise

SEEN_BY = ("normaliser",)


def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    total = clipped_sum(model, x, y, max_grad_norm)
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), max(len(x), 1))
