"""The least noise for a target epsilon, never on the less private side."""

import functools
import math
from collections.abc import Callable
from typing import Any

import dp_accounting
from dp_accounting import rdp

from defenses.accounting import account, quiet
from defenses.guarantee import Guarantee, Neighboring


def calibrate(
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
    while cost(low) <= epsilon and low > 1e-3:
        high, low = low, low / 1.1
    while high - low > tolerance * high:
        middle = _crossing(low, cost(low), high, cost(high), epsilon)
        low, high = (low, middle) if cost(middle) <= epsilon else (middle, high)
    return high


def _crossing(low: float, above: float, high: float, below: float, epsilon: float) -> float:
    """Return where a power law through both ends meets epsilon, kept off the ends so that the bracket shrinks."""
    if not math.isfinite(above) or above <= below or below <= 0:
        return (low + high) / 2
    share = math.log(above / epsilon) / math.log(above / below)
    # A little beyond the estimate in turn on either side: the next look then closes the bracket from the other end.
    return low + (high - low) * min(max(share + (0.05 if share < 0.5 else -0.05), 0.05), 0.95)


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
