"""Automatic clipping: the weights by hand, the most that a record adds by brute force, noise and price."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.per_example import PerExampleGradients
from defenses.guarantee import Guarantee
from defenses.randomness import Noise
from defenses.sampling import Lots
from defenses.schemes.automatic_clipping import AutomaticClipping, NormalizedGaussian
from defenses.schemes.dp_sgd import DPSGD

LOTS = Lots(100, 10, 2)


def test_weights_are_those_of_the_paper() -> None:
    norms = torch.tensor([[0.0], [0.01], [5.0], [math.inf], [math.nan], [1.0]])
    mask = torch.tensor([True] * 5 + [False])
    weights, _ = NormalizedGaussian(1.0, 1.0).factors(norms, torch.zeros(6, dtype=torch.long), mask, {})
    expected = torch.tensor([[100.0], [50.0], [1 / 5.01], [0.0], [0.0], [0.0]])
    torch.testing.assert_close(weights, expected)


def test_no_record_adds_more_than_the_norm_and_long_ones_add_nearly_that() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 6)) * np.logspace(-4, 6, 40)[:, None])
    y = torch.from_numpy(rng.integers(0, 3, 40))
    rule = AutomaticClipping(noise_multiplier=1.0, max_grad_norm=0.7).gradient(LOTS)
    net = Architecture("mlp", {"hidden": [5]}).build((6,), 3, seed=0, dtype=torch.float64)
    examples = PerExampleGradients(net, rule, (6,))
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    added = []
    for i in range(40):
        lot = parameters, x[i : i + 1], y[i : i + 1], torch.ones(1, dtype=torch.bool), rule.initial()
        sums, _, _ = examples.sums(*lot)
        added.append(float(torch.cat([value.flatten() for value in sums.values()]).norm()))
    assert 0.699 < max(added) < 0.7


def test_noise_has_the_scale_of_the_norm_and_the_price_is_that_of_dp_sgd() -> None:
    scheme = AutomaticClipping(noise_multiplier=1.5, max_grad_norm=2.0)
    rule, sums = scheme.gradient(LOTS), {"a": torch.zeros(20000)}
    drawn, _ = rule.release(sums, torch.zeros(0), {}, Noise(1, "noise", device=torch.device("cpu")))
    assert stats.kstest(drawn["a"].numpy() / 3.0, "norm").pvalue > 0.01
    found = account_run(scheme, History(LOTS), delta=1e-5)
    same = account_run(DPSGD(noise_multiplier=1.5), History(LOTS), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert isinstance(same, Guarantee)
    assert found.epsilon == same.epsilon
    promise = scheme.steps(LOTS)
    assert promise is not None
    assert (promise.thresholds, promise.noise_multiplier) == ((2.0,), 1.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise_multiplier": 1.0, "stability": 0.0}, "stability is 0"),
        ({"noise_multiplier": 1.0, "stability": math.inf}, "stability is inf"),
        ({"epsilon": -1.0}, "epsilon is -1"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta is 1"),
        ({}, "exactly one of the two"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutomaticClipping(**given)  # type: ignore[arg-type]
