"""Events that dp_accounting has no name for: mechanisms of which nothing is known but that they are epsilon-DP."""

import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import dp_accounting
from dp_accounting.pld import common, privacy_loss_distribution


@dataclass(frozen=True)
class PureDpEvent(dp_accounting.DpEvent):  # type: ignore[misc]
    """A mechanism known only to be epsilon-DP, under whatever relation the guarantee is stated for.

    Attributes:
        epsilon: In nats, at least 0.

    Raises:
        ValueError: If epsilon is negative or not a number.
    """

    epsilon: float

    def __post_init__(self) -> None:
        if math.isnan(self.epsilon) or self.epsilon < 0:
            raise ValueError(f"epsilon is {self.epsilon}; it must be at least 0")


LARGEST = 100.0  # exp(-100) is below 1e-43; exp(710) is no number any more


@dataclass(frozen=True)
class PureParts:
    """Pure mechanisms that are composed, with their budgets fixed in advance.

    Attributes:
        counts: epsilon -> how many mechanisms have it.
    """

    counts: tuple[tuple[float, int], ...]

    @property
    def total(self) -> float:
        """Epsilon at delta 0: the sum."""
        return math.fsum(epsilon * count for epsilon, count in self.counts)

    def epsilon_at(self, delta: float) -> float:
        """Return epsilon at a delta in [0, 1): of the composition of the randomised responses that dominate the parts.

        Parts above `LARGEST` are added as they are: their randomised response lies less often than any delta counts.

        Source: Kairouz, Oh and Viswanath 2015, "The Composition Theorem for Differential Privacy".
        """
        if delta == 0 or not self.counts or not math.isfinite(self.total):
            return self.total
        small = tuple((epsilon, count) for epsilon, count in self.counts if epsilon <= LARGEST)
        if not small:
            return self.total
        added = math.fsum(epsilon * count for epsilon, count in self.counts if epsilon > LARGEST)
        return min(self.total, added + float(_composed(small).get_epsilon_for_delta(delta)))


@functools.lru_cache(maxsize=16)
def _composed(counts: tuple[tuple[float, int], ...]) -> Any:
    """Return the privacy-loss distribution; rounding is towards more loss."""
    parts = [
        privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(epsilon, 0.0)
        ).self_compose(count)
        for epsilon, count in counts
    ]
    return functools.reduce(lambda one, other: one.compose(other), parts)


def without_pure(event: Any) -> tuple[PureParts, Any | None]:
    """Part an event into its pure mechanisms and the rest, which is None where there is none."""
    found: Counter[float] = Counter()
    rest = _rest(event, 1, found)
    return PureParts(tuple(sorted((epsilon, count) for epsilon, count in found.items() if epsilon > 0))), rest


def _rest(event: Any, count: int, found: Counter[float]) -> Any | None:
    if isinstance(event, PureDpEvent):
        found[event.epsilon] += count
        return None
    if isinstance(event, dp_accounting.SelfComposedDpEvent):
        left = _rest(event.event, count * event.count, found)
        return None if left is None else dp_accounting.SelfComposedDpEvent(left, event.count)
    if isinstance(event, dp_accounting.ComposedDpEvent):
        parts = [left for part in event.events if (left := _rest(part, count, found)) is not None]
        return dp_accounting.ComposedDpEvent(parts) if parts else None
    return event
