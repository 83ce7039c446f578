"""Named random streams: one root seed, and every stream a pure function of (root, names).

A stream never depends on what else was drawn, in which order, or how many models were trained together, so a run can be
resumed, widened or cut without changing a single draw.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """Derive the 128-bit seed of a named stream.

    Args:
        seed: Root seed, a non-negative integer of any size.
        *names: What the stream is for, from the general to the particular, e.g. ``("noise", step)``.

    Returns:
        A non-negative integer below 2**128; equal arguments give equal seeds on every machine.

    Raises:
        ValueError: If the seed is negative.

    Example:
        >>> derive(0, "noise", 1) == derive(0, "noise", 1)
        True
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; a seed is a non-negative integer")
    text = repr((int(seed), tuple((type(name).__name__, str(name)) for name in names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def stream(seed: int, *names: Name) -> np.random.Generator:
    """Return a NumPy generator for a named stream (see `derive`)."""
    return np.random.default_rng(np.random.SeedSequence(derive(seed, *names)))


class Noise:
    """Noise for one model and one step, on the device where it is added.

    On the CPU it comes from a NumPy generator with the stream's whole 128 bits: torch's own CPU generator keeps 32 bits
    of a seed, and who sees the iterates could try them all. On CUDA it comes from torch's Philox with 63 bits.

    Args:
        seed: The model's seed.
        *names: Name of the stream.
        device: Where the noise is wanted.
    """

    def __init__(self, seed: int, *names: Name, device: torch.device) -> None:
        self._here = stream(seed, *names) if device.type == "cpu" else None
        self._there = None
        if self._here is None:
            self._there = torch.Generator(device=device)
            self._there.manual_seed(derive(seed, *names) % 2**63)

    def normal(self, like: Tensor) -> Tensor:
        """Return standard Gaussian noise in the shape and type of `like`; each call draws afresh."""
        if self._here is None:
            return torch.randn(like.shape, generator=self._there, dtype=like.dtype, device=like.device)
        if like.dtype == torch.float64:
            return torch.from_numpy(self._here.standard_normal(tuple(like.shape)))
        return torch.from_numpy(self._here.standard_normal(tuple(like.shape), dtype=np.float32)).to(like.dtype)
