"""From the words of `auditor plant` to what they mean, and what so many canaries can show; before any data is read."""

import math
from pathlib import Path

from pydantic import ValidationError

from attacks.registry import registered_attacks
from auditor.canaries.canary_type import CanaryType, canary_types
from auditor.canaries.detectability import canaries_needed, one_run_ceiling
from auditor.canaries.planting import FEWEST
from auditor.plan.plan import table_error
from auditor.plan.sections import Source
from defenses.errors import PlanError
from reports.parsing import read_toml
from reports.suggestions import nearest
from reports.untrusted import printable, quoted


def find_kind(name: str) -> CanaryType:
    """Return a kind of canary by its name.

    Raises:
        PlanError: If it is unknown.
    """
    known = canary_types()
    if name not in known:
        raise PlanError(f"kind {quoted(name)} of canaries is unknown{nearest(name, list(known))}")
    return known[name]()


def read_request(source: str, label: str | None, reading: Path | None) -> Source:
    """Return the source that a command line names.

    Args:
        source: Name or path.
        label: Label column of a table.
        reading: TOML file with the other keys of a plan's source.

    Raises:
        PlanError: If the file cannot be read, or a key or value does not fit.
    """
    given = {} if reading is None else read_toml(reading, error=PlanError)
    if label is not None:
        given["label"] = label
    try:
        return Source.model_validate({"source": source} | given)
    except ValidationError as error:
        where = "the source" if reading is None else printable(str(reading))
        raise PlanError(f"{where}: {table_error(error, Source)}") from error


def detectability(
    canaries: int, *, epsilon: float | None, delta: float, attacks: int | None = None, force: bool = False
) -> list[str]:
    """Say what an audit with so many canaries can show at most.

    Args:
        canaries: m.
        epsilon: The claim that is to be tested, or None.
        delta: Its delta, in [0, 1).
        attacks: How many attacks the audit will run; None takes those of a plan that lists none.
        force: Whether a claim that cannot be contradicted is let through.

    Returns:
        Sentences for the user.

    Raises:
        PlanError: If the claim is not below the ceiling and `force` is not given; says how many canaries would do.
    """
    if not 0 <= delta < 1:
        raise PlanError(f"delta is {delta}; it must lie in [0, 1), for example 1e-5")
    if epsilon is not None and not (epsilon >= 0 and math.isfinite(epsilon)):
        raise PlanError(f"epsilon is {epsilon}; give the finite, non-negative epsilon that is claimed")
    if canaries < 2:
        raise PlanError(f"{canaries} canaries; at least 2 are needed to tell one in from one out")
    if attacks is None:
        attacks = sum(attack.usual for attack in registered_attacks().values())
    if attacks < 1:
        raise PlanError(f"attacks is {attacks}; an audit runs at least 1")
    ceiling = one_run_ceiling(canaries, delta=delta, attacks=attacks)
    said = (
        f"{canaries} canaries can show an epsilon of at most {ceiling:.2f} at delta {delta:g} "
        f"(95% confidence, best of {attacks} attack{'s' * (attacks > 1)}), and only if every guess is right."
    )
    if epsilon is None or ceiling > epsilon:
        return [said]
    enough = canaries_needed(epsilon, delta=delta, attacks=attacks)
    remedy = (
        f"{max(enough, FEWEST):,} would do"
        if enough
        else "no number of them would do in one run, where the bound pays m x delta; audit many runs instead"
    )
    if force:
        return [f"{said} So they cannot contradict a claim of {epsilon:g}: {remedy}."]
    raise PlanError(
        f"{said} So they cannot contradict a claim of {epsilon:g}: {remedy}. --force plants them all the same"
    )
