"""Named streams: functions of their names alone, and noise that keeps the whole seed."""

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import kstest

from defenses.randomness import Noise, derive, normal_deviates, stream

CPU = torch.device("cpu")


def test_a_stream_is_a_function_of_its_names() -> None:
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    seeds = {
        derive(1),
        derive(2),
        derive(1, "a"),
        derive(1, "b"),
        derive(1, "a", 1),
        derive(1, "a1"),
        derive(1, "a", "1"),
    }
    assert len(seeds) == 7
    with pytest.raises(ValueError, match="non-negative"):
        derive(-1)


def drawn(noise: Noise, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return noise.normal({"w": torch.zeros(shape, dtype=dtype)})["w"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_keeps_more_than_32_bits_of_its_seed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # Streams whose seeds agree in the low 32 bits must differ: torch's CPU generator would make them equal.
    seeds = iter([5, 5 + 2**32, 5 + 7 * 2**100])
    monkeypatch.setattr("defenses.randomness.derive", lambda *names: next(seeds))
    values = [drawn(Noise(0, device=CPU), 8, dtype=dtype) for _ in range(3)]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert values[0].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_standard_gaussian_and_fresh_at_each_call(dtype: torch.dtype) -> None:
    noise = Noise(3, "noise", 0, device=CPU)
    first, second = drawn(noise, 401, 501, dtype=dtype), drawn(noise, 401, 501, dtype=dtype)
    flat = first.flatten().double().numpy()
    assert kstest(flat, "norm").pvalue > 1e-3
    # The halves come from the cosine and the sine of one angle: their squares must not be related either.
    half = len(flat) // 2
    for power in (1, 2):
        for one, other in ((flat, second.flatten().double().numpy()), (flat[:half], flat[half : 2 * half])):
            assert abs(np.corrcoef(one**power, other**power)[0, 1]) < 5 / np.sqrt(half)
    assert torch.equal(first, drawn(Noise(3, "noise", 0, device=CPU), 401, 501, dtype=dtype))


def test_noise_of_a_network_is_one_draw_cut_into_its_parameters() -> None:
    like = {"a": torch.zeros(3, 5), "b": torch.zeros(7), "c": torch.zeros(())}
    parts = Noise(1, device=CPU).normal(like)
    assert {name: part.shape for name, part in parts.items()} == {name: value.shape for name, value in like.items()}
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), drawn(Noise(1, device=CPU), 23))


def test_noise_bits_are_the_key_stream_of_aes() -> None:
    # Counter mode by hand: each block of the stream is the encrypted block number, big end first.
    key = derive(9, "noise", 4).to_bytes(16, "big")
    cipher = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()
    stream_bytes = b"".join(cipher.update(block.to_bytes(16, "big")) for block in range(4))
    bits = torch.frombuffer(bytearray(stream_bytes), dtype=torch.int32).view(2, 8)
    assert torch.equal(drawn(Noise(9, "noise", 4, device=CPU), 16), normal_deviates(bits).flatten())


@pytest.mark.parametrize(("integer", "largest"), [(torch.int32, 6.7), (torch.int64, 9.5)])
def test_extreme_bits_give_finite_noise(integer: torch.dtype, largest: float) -> None:
    limits = torch.iinfo(integer)
    extremes = torch.tensor([limits.min, limits.min + 1, -1, 0, 1, limits.max - 1, limits.max], dtype=integer)
    found = normal_deviates(torch.cartesian_prod(extremes, extremes).T.contiguous())
    assert bool(found.isfinite().all())
    assert largest - 0.2 < float(found.abs().max()) < largest
