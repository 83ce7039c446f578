"""What a tuning costs in privacy: in words where nothing covers it, in numbers where an accountant does."""

from collections.abc import Sequence
from typing import Any

import dp_accounting

from attacks.reconstruction.dcgan import DcganTraining
from auditor.plan import Plan
from auditor.resolve import resolve_defense
from defenses.accounting import account
from defenses.defense import History
from defenses.guarantee import Unaccounted
from reports.tuning import Look, Outcome


def price_of_release(plan: Plan, final: Look | None, events: Sequence[Any], outcome: Outcome) -> list[str]:
    """Return what is, and what is not, covered by a proof, one sentence each.

    Args:
        plan: The audit plan of any of the settings; delta and [generator] are read off it.
        final: The look at the model that is to be released.
        events: What every training of the walk and the final look did.
        outcome: What the tuning came to.

    Source: for what choosing costs, Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy".
    """
    said = [
        "The choice of the setting is not covered: every look read the private records, and which setting is named "
        "depends on what was seen. No epsilon is given for that choice.",
    ]
    released = outcome in (Outcome.FOUND, Outcome.ALL) and final is not None
    if released and final is not None:
        proved = (
            f"epsilon {final.epsilon:.4g} at delta {final.delta:g}"
            if final.epsilon is not None and final.delta is not None
            else f"nothing ({final.epsilon_reason or 'no accountant knows the scheme'})"
        )
        many = "the final model" if final.models == 1 else f"each of the {final.models} final models"
        said.append(
            f"What is proved of {many}, as though the setting had been fixed without looking: {proved}. It was trained "
            "on a split and a seed that the walk did not see."
        )
    everything = _composed(plan, events)
    said.append(
        f"Only what is released costs. Were every model that was trained here to be released, {everything}; those of "
        "the walk lie in the work folder, which is private."
    )
    if plan.generator is not None:
        said.append("Samples of a generator are a release of their own, and its epsilon adds to the model's.")
    said.append("The verdicts themselves are made from private records, and publishing them is not covered either.")
    return said


def _composed(plan: Plan, events: Sequence[Any]) -> str:
    known = [event for event in events if event is not None and not isinstance(event, Unaccounted)]
    if len(known) < len(events) or not known:
        return "nothing could be proved of them together"
    if plan.generator is not None and plan.data is not None:
        lots = DcganTraining(**plan.generator.model_dump(exclude={"samples"})).lots(round(0.5 * plan.data.pool))
        beside = resolve_defense(plan).event(History(lots))
        if isinstance(beside, Unaccounted):
            return "nothing could be proved of them together"
        known += [beside] * len(events)
    defense = resolve_defense(plan)
    total = account(
        dp_accounting.ComposedDpEvent(known), delta=plan.judged_delta, neighboring=defense.neighboring
    )  # fmt: skip
    if isinstance(total, Unaccounted):
        return f"nothing could be proved of them together ({total.reason})"
    return f"epsilon {total.epsilon:.4g} at delta {total.delta:g} would hold for all {len(known)} together"
