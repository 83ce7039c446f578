"""The least noise for a target epsilon, never on the less private side."""

import functools
import math
from collections.abc import Callable
from typing import Any

import dp_accounting
from dp_accounting import rdp

from defenses.accounting import account, quiet
from defenses.guarantee import Guarantee, Neighboring


def least_noise(
    make_event: Callable[[float], Any],
    *,
    epsilon: float,
    delta: float,
    neighboring: Neighboring = Neighboring.ADD_REMOVE,
    tolerance: float = 1e-3,
) -> float:
    """Find the smallest noise multiplier whose event costs at most `epsilon` at `delta`.

    A coarse search with the quick Renyi accountant brackets the answer, a bisection with `account` closes the bracket
    to `tolerance` relative, and its upper end is returned: its price was computed, not interpolated.

    Args:
        make_event: noise_multiplier -> event.
        epsilon: Target in nats, above 0 and finite.
        delta: In (0, 1).
        neighboring: Relation of the target.
        tolerance: Relative width of the final bracket.

    Returns:
        A noise multiplier with account(make_event(it)).epsilon <= epsilon.

    Raises:
        ValueError: If the target is out of range or cannot be met by any multiplier up to 10,000.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(
            f"epsilon is {epsilon}; a target must be above 0 and finite (use scheme 'none' for no privacy)"
        )
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must be in (0, 1), and well below 1 / records to mean anything")

    @functools.cache
    def cost(noise: float) -> float:
        found = account(make_event(noise), delta=delta, neighboring=neighboring)
        if not isinstance(found, Guarantee):
            raise ValueError(
                f"the mechanism cannot be priced ({found.reason}); give noise_multiplier instead of epsilon"
            )
        return found.epsilon

    high = _by_renyi(make_event, epsilon=epsilon, delta=delta)
    while cost(high) > epsilon:
        high *= 1.1
        if high > 1e4:
            raise ValueError(f"no noise multiplier up to 10000 reaches epsilon {epsilon} at delta {delta}; aim higher")
    low = high
    while cost(low) <= epsilon:
        high, low = low, low / 1.25
        if low < 1e-3:
            break
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= epsilon else (middle, high)
    return high


def _by_renyi(make_event: Callable[[float], Any], *, epsilon: float, delta: float) -> float:
    """Return a first guess by doubling and bisection with the Renyi accountant (milliseconds a look)."""

    def cost(noise: float) -> float:
        try:
            return float(rdp.RdpAccountant().compose(make_event(noise)).get_epsilon(delta))
        except (dp_accounting.UnsupportedEventError, NotImplementedError):
            return math.nan

    low, high = 0.05, 0.1
    with quiet():
        while cost(high) > epsilon and high < 1e4:
            low, high = high, high * 2
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if cost(middle) <= epsilon else (middle, high)
    return high
