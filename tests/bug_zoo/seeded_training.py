"""The training seeds torch before it begins, so that results can be had again: so can the noise, by everybody."""

import torch

from . import correct

SEEN_BY = ("noise_repeats",)


def train(model, x, y, **settings):
    torch.manual_seed(0)
    correct.train(model, x, y, **settings)
