"""How wide the noise is on two lots, where a bound needs it to be the same on both."""

from dataclasses import replace

import numpy as np
from scipy import stats
from torch import Tensor, nn

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.implementation import StepSettings

_CALLS = 4
_DIFFERENT = 1e-3


def widest_noise(
    bench: Harness, model: nn.Module, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], dials: StepSettings
) -> float | None:
    """Return an upper confidence limit on the noise, over the promised one, or None where it differs between two lots.

    Args:
        bench: Calls the code under test; its `error` is that of the limit.
        model: To measure on.
        one: Records and labels.
        other: The same with one record more or less.
        dials: Of the call; the noise multiplier is set to 1.

    Returns:
        The limit, at least 0. Gaussian noise of one width that moves by `reach` leaks as reach / width does; noise of
        two widths leaks by its width as well, which is another check's business.
    """
    noisy = replace(dials, noise_multiplier=1.0)
    squares = [
        sum(float(value.square().sum()) for _ in range(_CALLS) for value in bench.noise(model, x, y, noisy).values())
        for x, y in (one, other)
    ]
    freedom = _CALLS * sum(parameter.numel() for parameter in model.parameters())
    if min(squares) == 0:
        return 0.0 if max(squares) == 0 else None
    ratio = squares[1] / squares[0]
    if 2 * min(stats.f.cdf(ratio, freedom, freedom), stats.f.sf(ratio, freedom, freedom)) < _DIFFERENT:
        return None
    promised = dials.steps * (bench.contribution(dials)) ** 2
    return float(np.sqrt(sum(squares) / stats.chi2.ppf(bench.error, 2 * freedom) / promised))
