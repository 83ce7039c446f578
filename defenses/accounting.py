"""What a run costs: dp_accounting events to a `Guarantee`, by the tightest accountant that knows the mechanism."""

import contextlib
import functools
import importlib.metadata
import logging
import math
from collections.abc import Iterator
from typing import Any

import dp_accounting
from dp_accounting import pld, rdp

from defenses.defense import Defense, History
from defenses.events import without_pure
from defenses.guarantee import Guarantee, Neighboring, Unaccounted

_INTERVAL, _LARGE = 1e-4, 100.0  # of the PLD's grid, up to so large an epsilon; beyond it grows in proportion
_RELATIONS = {
    Neighboring.ADD_REMOVE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Neighboring.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def account(event: Any, *, delta: float, neighboring: Neighboring = Neighboring.ADD_REMOVE) -> Guarantee | Unaccounted:
    """Price an event: the privacy-loss distribution where it is known, Renyi DP as a check and as the second choice.

    Both are upper bounds on the true epsilon; the PLD is tight up to its discretisation, so a Renyi bound clearly below
    it would mean that one of the two is wrong, which is refused. Noise multipliers are relative to what one record adds
    (the clipping norm). Under REPLACE_ONE a sum moves by twice that: dp_accounting's PLD doubles it and its Renyi
    accountant does not, so only the PLD is asked there.

    Args:
        event: A `dp_accounting.DpEvent`, or `Unaccounted`, which is handed through.
        delta: In [0, 1); 0 asks for pure epsilon.
        neighboring: Relation to state the guarantee for.

    Returns:
        A guarantee with infinite epsilon for a non-private event, and `Unaccounted` where neither accountant knows
        the mechanism under this relation.

    Raises:
        ValueError: If delta is out of range, or the accountants contradict each other.

    Examples:
        >>> event = dp_accounting.GaussianDpEvent(1.0)
        >>> round(account(event, delta=1e-5).epsilon, 2)
        4.38

    Source: Doroshenko et al. 2022 (PLD), Mironov 2017 (RDP), both as implemented by dp_accounting.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; it must be in [0, 1), and well below 1 / records to mean anything")
    if isinstance(event, Unaccounted):
        return event
    pure, rest = without_pure(event)
    if rest is not None and not pure.counts:
        return _account(rest, delta=delta, neighboring=neighboring)
    if rest is None:
        name = "sum of pure budgets" if delta == 0 else "optimal composition of pure budgets (PLD of dp_accounting)"
        return Guarantee(pure.epsilon_at(delta), delta, neighboring, accountant=name, epsilon_at=pure.epsilon_at)
    found = _account(rest, delta=delta, neighboring=neighboring)
    if isinstance(found, Unaccounted):
        return found
    assert found.epsilon_at is not None
    of_rest = found.epsilon_at
    return Guarantee(
        found.epsilon + pure.total,
        delta,
        neighboring,
        accountant=f"{found.accountant}, plus pure budgets of {pure.total:.4g}",
        epsilon_at=lambda at: of_rest(at) + pure.total,
    )


def _account(event: Any, *, delta: float, neighboring: Neighboring) -> Guarantee | Unaccounted:
    version = importlib.metadata.version("dp-accounting")
    with quiet():
        rough = _composed(rdp.RdpAccountant, event, Neighboring.ADD_REMOVE)
    renyi = rough if neighboring is Neighboring.ADD_REMOVE else None
    # A grid that is as fine at an epsilon of thousands as at one would not fit into memory; rounding is upwards.
    size = 1.0 if rough is None else _epsilon(rough, delta)
    interval = _INTERVAL * max(1.0, size / _LARGE) if math.isfinite(size) else _INTERVAL
    exact = _composed(_pld(interval), event, neighboring)
    if exact is None and renyi is None:
        return Unaccounted(
            f"no accountant of dp_accounting {version} knows {type(event).__name__} under {neighboring.name}"
        )
    if exact is None:
        assert renyi is not None
        name, best = f"RDP (dp_accounting {version})", renyi
        epsilon = _epsilon(renyi, delta)
    else:
        epsilon = _epsilon(exact, delta)
        name, best = f"PLD (dp_accounting {version})", exact
        if renyi is not None:
            check = _epsilon(renyi, delta)
            name += f", RDP gives {check:.4g}"
            if _contradicts(check, epsilon):  # over many tiny losses that may be the PLD's rounding: look closer
                best = _composed(_pld(interval / 100), event, neighboring)
                epsilon = _epsilon(best, delta)
            if _contradicts(check, epsilon):
                raise ValueError(
                    f"the accountants contradict each other: PLD says epsilon {epsilon:.6g}, RDP {check:.6g} "
                    f"at delta {delta}; neither is used"
                )
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        neighboring=neighboring,
        accountant=name,
        epsilon_at=functools.partial(_epsilon, best),
    )


def account_run(defense: Defense, history: History, *, delta: float) -> Guarantee | Unaccounted:
    """Price a run of a scheme, with the scheme's assumptions attached.

    Args:
        defense: The scheme that trained.
        history: What the run did.
        delta: In [0, 1).

    Returns:
        What is proved of the run, under the scheme's own relation and unit.
    """
    found = account(defense.event(history), delta=delta, neighboring=defense.neighboring)
    if isinstance(found, Unaccounted):
        return found
    return Guarantee(
        epsilon=found.epsilon,
        delta=found.delta,
        neighboring=found.neighboring,
        unit=defense.unit,
        accountant=found.accountant,
        assumptions=defense.assumptions(),
        epsilon_at=found.epsilon_at,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the Renyi accountant's remarks on orders that it leaves out: a minimum over fewer orders still holds."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _contradicts(renyi: float, exact: float) -> bool:
    """Return whether a Renyi bound lies clearly below a PLD's epsilon, which is the tighter one."""
    return renyi < exact * 0.98 - 1e-3


def _pld(interval: float) -> Any:
    return functools.partial(pld.PLDAccountant, value_discretization_interval=interval)


def _composed(kind: Any, event: Any, neighboring: Neighboring) -> Any | None:
    try:
        accountant = kind(neighboring_relation=_RELATIONS[neighboring])
        return accountant.compose(event)
    except (dp_accounting.UnsupportedEventError, NotImplementedError, ValueError):
        return None


def _epsilon(accountant: Any, delta: float) -> float:
    epsilon = float(accountant.get_epsilon(delta))
    return math.inf if math.isnan(epsilon) else max(epsilon, 0.0)
