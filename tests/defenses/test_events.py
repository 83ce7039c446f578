"""Pure mechanisms among others: sums, the optimal composition, and what stands beside them."""

import math

import dp_accounting
import pytest

from defenses.accounting import account
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee, Neighboring


def priced(event: object, delta: float, neighboring: Neighboring = Neighboring.ADD_REMOVE) -> float:
    found = account(event, delta=delta, neighboring=neighboring)
    assert isinstance(found, Guarantee)
    return found.epsilon


def optimal(epsilon: float, count: int, delta: float) -> float:
    """Return Kairouz, Oh and Viswanath 2015, Theorem 3.3, as sums: the least (k - 2i) epsilon whose delta fits."""
    growth = math.exp(epsilon)
    best = count * epsilon
    for i in range(count // 2 + 1):
        reached = sum(
            math.comb(count, j) * (math.exp((count - j) * epsilon) - math.exp((count - 2 * i + j) * epsilon))
            for j in range(i)
        )
        if reached / (1 + growth) ** count <= delta:
            best = (count - 2 * i) * epsilon
    return best


@pytest.mark.parametrize("relation", list(Neighboring))
def test_pure_budgets_add_up_under_either_relation(relation: Neighboring) -> None:
    event = dp_accounting.ComposedDpEvent(
        [PureDpEvent(0.5), dp_accounting.SelfComposedDpEvent(PureDpEvent(0.25), 4), PureDpEvent(0.0)]
    )
    assert priced(event, 0.0, relation) == pytest.approx(1.5)
    assert priced(PureDpEvent(0.0), 1e-5, relation) == 0


@pytest.mark.parametrize(("epsilon", "count", "delta"), [(0.1, 50, 1e-5), (0.5, 20, 1e-3), (0.05, 200, 1e-6)])
def test_many_small_budgets_compose_as_randomised_responses_do(epsilon: float, count: int, delta: float) -> None:
    """The optimal composition is a staircase in epsilon; the curve between two steps is below the upper one."""
    found = priced(dp_accounting.SelfComposedDpEvent(PureDpEvent(epsilon), count), delta)
    upper = optimal(epsilon, count, delta)
    assert upper - 2 * epsilon - 1e-6 <= found <= upper + 1e-2
    assert found < count * epsilon


def test_beside_a_gaussian_the_budgets_are_added() -> None:
    gaussian = dp_accounting.GaussianDpEvent(2.0)
    together = dp_accounting.ComposedDpEvent([PureDpEvent(0.5), gaussian])
    assert priced(together, 1e-5) == pytest.approx(priced(gaussian, 1e-5) + 0.5)


def test_what_is_unknown_stays_unaccounted_beside_a_pure_part() -> None:
    event = dp_accounting.ComposedDpEvent([PureDpEvent(0.5), dp_accounting.UnsupportedDpEvent()])
    assert not isinstance(account(event, delta=1e-5), Guarantee)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon is -1"):
        PureDpEvent(-1.0)


def test_groups_and_replacement_are_converted_only_when_asked() -> None:
    one = Guarantee(0.5, 1e-6, Neighboring.ADD_REMOVE, accountant="given")
    three = one.for_group(3)
    assert (three.epsilon, three.delta) == (1.5, pytest.approx(1e-6 * (1 + math.e**0.5 + math.e)))
    swapped = one.for_replacement()
    assert swapped.neighboring is Neighboring.REPLACE_ONE
    assert (swapped.epsilon, swapped.delta) == (1.0, pytest.approx(1e-6 * (1 + math.e**0.5)))
    with pytest.raises(ValueError, match="REPLACE_ONE; only ADD_REMOVE"):
        swapped.for_replacement()
    with pytest.raises(ValueError, match="size is 0"):
        one.for_group(0)
    assert Guarantee(400.0, 1e-5, Neighboring.ADD_REMOVE).for_group(9).delta < 1


def test_huge_budgets_are_added_and_do_not_overflow() -> None:
    assert priced(PureDpEvent(1000.0), 1e-5) == 1000.0
    small = dp_accounting.SelfComposedDpEvent(PureDpEvent(0.1), 100)
    both = dp_accounting.ComposedDpEvent([small, PureDpEvent(800.0)])
    assert priced(both, 1e-5) == pytest.approx(800.0 + priced(small, 1e-5))
    assert priced(dp_accounting.SelfComposedDpEvent(PureDpEvent(99.0), 3), 1e-5) == pytest.approx(3 * 99.0, rel=1e-3)
