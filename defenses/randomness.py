"""Named random streams: one root seed, and every stream a pure function of (root, names).

A stream never depends on what else was drawn, in which order, or how many models were trained together, so a run can be
resumed, widened or cut without changing a single draw.
"""

import hashlib

import numpy as np

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
