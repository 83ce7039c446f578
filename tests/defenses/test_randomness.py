"""Named streams: functions of their names alone, and noise that keeps the whole seed."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from defenses.randomness import Noise, derive, stream

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_keeps_more_than_32_bits_of_its_seed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # Streams whose seeds agree in the low 32 bits must differ: torch's CPU generator would make them equal.
    like = torch.zeros(8, dtype=dtype)
    seeds = iter([5, 5 + 2**32, 5 + 7 * 2**100])
    monkeypatch.setattr("defenses.randomness.derive", lambda *names: next(seeds))
    drawn = [Noise(0, device=CPU).normal(like) for _ in range(3)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].dtype == dtype


def test_noise_is_standard_gaussian_and_fresh_at_each_call() -> None:
    noise = Noise(3, "noise", 0, device=CPU)
    first, second = noise.normal(torch.zeros(200, 100)), noise.normal(torch.zeros(200, 100))
    assert kstest(first.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 5 / np.sqrt(20_000)
    assert torch.equal(first, Noise(3, "noise", 0, device=CPU).normal(torch.zeros(200, 100)))
