"""Named random streams: one root seed, and every stream a pure function of (root, names).

A stream never depends on what else was drawn, in which order, or how many models were trained together, so a run can be
resumed, widened or cut without changing a single draw.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from defenses.compiled_functions import CompiledFunction

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

    Examples:
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
    """Gaussian and Laplace noise for one model and one step, on the device where it is added.

    On the CPU its bits are the key stream of AES-128 in counter mode under the stream's whole 128 bits, so who sees the
    iterates but not the seed cannot tell it from true randomness; torch's own CPU generator keeps 32 bits of a seed,
    and all of them could be tried. The bits become normal deviates by Box and Muller's transform (1958), whose largest
    is 6.6 in float32 and 9.4 in float64. On CUDA it comes from torch's Philox with 63 bits.

    Args:
        seed: The model's seed.
        *names: Name of the stream.
        device: Where the noise is wanted.
        compiled: Whether to compile the transform.
    """

    def __init__(self, seed: int, *names: Name, device: torch.device, compiled: bool = False) -> None:
        self._here, self._there, self._compiled = None, None, compiled
        self._gammas: np.random.Generator | None = None
        self._seed, self._names = seed, names
        if device.type == "cpu":
            key = derive(seed, *names).to_bytes(16, "big")
            self._here = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor()
        else:
            self._there = torch.Generator(device=device)
            self._there.manual_seed(derive(seed, *names) % 2**63)

    def normal(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return standard Gaussian noise in the shapes and type of `like`; each call draws afresh."""
        sizes = [value.numel() for value in like.values()]
        first = next(iter(like.values()))
        drawn = self._draw(sum(sizes), first.dtype, first.device)
        return {name: part.view_as(like[name]) for name, part in zip(like, torch.split(drawn, sizes), strict=True)}

    def laplace(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return standard Laplace noise (density exp(-|x|) / 2) in the shapes and type of `like`; draws afresh."""
        return self.laplace_sums(like, 1)

    def laplace_sums(self, like: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """Return, for every coordinate, the sum of `count` independent standard Laplace deviates.

        That is the difference of two gamma deviates of shape `count`; they come from NumPy's Philox with a key of 128
        bits on every device. With a count of 0 the sums are 0.

        Args:
            like: name -> tensor, for shapes, type and device.
            count: At least 0.
        """
        if count < 0:
            raise ValueError(f"count is {count}; it must be at least 0")

        if self._gammas is None:
            self._gammas = np.random.Generator(np.random.Philox(key=derive(self._seed, *self._names, "gamma")))
        gamma = self._gammas.standard_gamma

        def drawn(value: Tensor) -> Tensor:
            shape = tuple(value.shape)
            sums = gamma(count, shape) - gamma(count, shape)
            return torch.as_tensor(sums, dtype=value.dtype, device=value.device)

        return {name: drawn(value) for name, value in like.items()}

    def _draw(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self._here is None:
            return torch.randn(count, generator=self._there, dtype=dtype, device=device)
        integer = torch.int64 if dtype == torch.float64 else torch.int32
        pairs = -(-count // 2)
        size = 2 * pairs * integer.itemsize
        stream = bytearray(size + 15)  # the cipher wants room for one block more
        self._here.update_into(bytes(size), stream)
        bits = torch.frombuffer(stream, dtype=integer, count=2 * pairs).view(2, pairs)
        found: Tensor = _deviates(bits, compiled=self._compiled)
        return found.view(-1)[:count].to(dtype)


def normal_deviates(bits: Tensor) -> Tensor:
    """Turn random bits into independent standard normal deviates (Box and Muller 1958).

    Args:
        bits: (2, n) int32 or int64, uniform over all values.

    Returns:
        (2, n) float32 or float64.
    """
    size = 8 * bits.dtype.itemsize
    dtype = torch.float64 if bits.dtype == torch.int64 else torch.float32
    # The sign bit is dropped and a half added, so that the logarithm never sees zero.
    uniform = ((bits[0] & (2 ** (size - 1) - 1)).to(dtype) + 0.5) * 2.0 ** (1 - size)
    angle = bits[1].to(dtype) * (2 * math.pi * 2.0**-size)
    radius = (-2 * uniform.log()).clamp(min=0).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin()])


_deviates = CompiledFunction(normal_deviates, name="the noise")
