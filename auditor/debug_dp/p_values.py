"""p-values: from limits that hold at a given error, and corrected for how many are looked at."""

import math
from collections.abc import Callable, Sequence

# Below this no table of p-values tells numbers apart.
_LEAST = 1e-12


def least_error(rejects: Callable[[float], bool]) -> float:
    """Return the smallest error at which a confidence limit contradicts a claim: its p-value.

    Args:
        rejects: error in (0, 1) -> whether the limit at that error contradicts the claim; once true, true for all
            larger errors.

    Returns:
        In [1e-12, 1], from above to 0.1%; 1 if no error is large enough.

    Examples:
        >>> round(least_error(lambda error: error >= 0.02), 4)
        0.02
    """
    high = math.log(0.999999)
    if not rejects(math.exp(high)):
        return 1.0
    low = math.log(_LEAST)
    if rejects(math.exp(low)):
        return _LEAST
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if rejects(math.exp(middle)) else (middle, high)
    return math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that comparing each with one level errs at that level over all of them.

    The smallest is multiplied by their number, the next by one less, and none may come out below a smaller one.

    Args:
        p_values: Each in [0, 1], in any order, under any dependence.

    Returns:
        Adjusted p-values in the same order.

    Raises:
        ValueError: If one is outside [0, 1].

    Examples:
        >>> holm([0.5, 0.01, 0.02])
        [0.5, 0.03, 0.04]

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"p-values {wrong} are outside [0, 1]; give probabilities")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted
