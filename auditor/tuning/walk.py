"""Which settings to look at, in which order, and when to stop: pure, so that its error can be counted by simulation.

Settings are ordered, the strongest noise first. A look says whether a setting passes, wrongly with at most a given
probability. Neither walk assumes that a leak grows as the noise falls; that only makes them find the best setting.
"""

import math
from collections.abc import Callable

Look = Callable[[int], bool]


def fixed_sequence(count: int, look: Look) -> int | None:
    """Look at one setting after the other and stop at the first that does not pass.

    A setting that ought not to pass is only looked at if all before it did, so each may be judged at the whole error:
    the first one that ought not to pass is passed, wrongly, with that probability, and no other comes before it.

    Args:
        count: How many settings there are.
        look: Place -> whether it passes; asked once for each place that is come to.

    Returns:
        The last place that passed, or None.

    Source: fixed-sequence testing, Maurer, Hothorn and Lehmacher (1995); Westfall and Krishen (2001).
    """
    passed = None
    for place in range(count):
        if not look(place):
            break
        passed = place
    return passed


def bisection(count: int, look: Look) -> int | None:
    """Halve what is left: on to less noise after a setting that passes, back to more after one that does not.

    At most `looks_of_bisection(count)` settings are looked at, so each is to be judged at that share of the error. If
    leaks do not grow as the noise falls, what passes passes at its error all the same, but may not be the best.

    Args and returns as in `fixed_sequence`.
    """
    passed, low, high = None, 0, count
    while low < high:
        middle = (low + high) // 2
        if look(middle):
            passed, low = middle, middle + 1
        else:
            high = middle
    return passed


def looks_of_bisection(count: int) -> int:
    """Return the most looks that a bisection takes."""
    return math.ceil(math.log2(count + 1))
