"""What a tuning costs in privacy: in words where nothing covers it, in numbers where an accountant does."""

from collections.abc import Sequence
from typing import Any

import dp_accounting

from attacks.reconstruction.dcgan import DcganTraining
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_defense
from auditor.targets.trained_here import records_of
from defenses.accounting import account
from defenses.defense import History
from defenses.guarantee import Unaccounted
from reports.records.tuning import Outcome, Tuning


def event_of_generator(plan: Plan) -> Any | None:
    """Return what the training of a plan's [generator] does to the data, or None without one."""
    if plan.generator is None:
        return None
    lots = DcganTraining(**plan.generator.model_dump(exclude={"samples"})).lots(round(0.5 * records_of(plan).pool))
    return resolve_defense(plan).event(History(lots))


def price_of_release(plan: Plan, record: Tuning, events: Sequence[Any]) -> list[str]:
    """Return what is, and what is not, covered by a proof, one sentence each.

    Args:
        plan: The audit plan of any of the settings; delta and neighbours are read off it.
        record: What the tuning came to.
        events: What every training of a model or a generator did, of the walk and of the final look.

    Source: for what choosing costs, Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy".
    """
    final, selection = record.final, record.selection
    if selection is None:
        said = [
            "The choice of the setting is not covered: every look read the private records, and which setting is named "
            "depends on what was seen. No epsilon is given for that choice."
        ]
    elif selection.epsilon is None or selection.delta is None:
        said = [f"The choice of the setting was made privately, but nothing can be proved of it: {selection.reason}."]
    else:
        said = [
            "The choice of the setting is covered: a random number of tries, each scored with noise, of which only the "
            f"best is told. Choosing and the final model together have epsilon {selection.epsilon:.4g} at delta "
            f"{selection.delta:g} (repeat and select, by Renyi divergences, everything priced at the weakest noise). "
            "Whether the final look confirms the choice is read off private records, and that is not covered."
        ]
    if record.outcome in (Outcome.FOUND, Outcome.ALL) and final is not None:
        proved = (
            f"epsilon {final.epsilon:.4g} at delta {final.delta:g}"
            if final.epsilon is not None and final.delta is not None
            else f"nothing ({final.epsilon_reason or 'no accountant knows the scheme'})"
        )
        many = "the final model" if final.models == 1 else f"each of the {final.models} final models"
        said.append(
            f"What is proved of {many} alone, as though the setting had been fixed without looking: {proved}. It was "
            "trained on a split and a seed that nothing before it saw."
        )
    if plan.seed is not None:
        said.append(
            "The plan gives a seed, and who knows it knows the noise: all of this is for audit use only. Leave the "
            "seed out to get a model that may be released."
        )
    if selection is None and events:
        said.append(
            "Only what is released costs. Were every model and generator that was judged to be released, "
            f"{_composed(plan, events)}. They lie in the work folder, which is private and must stay so: the control "
            "there has no protection at all."
        )
    if plan.generator is not None:
        said.append("Samples of a generator are a release of their own, and its epsilon adds to the model's.")
    said.append("The verdicts themselves are made from private records, and publishing them is not covered either.")
    return said


def _composed(plan: Plan, events: Sequence[Any]) -> str:
    known = [event for event in events if event is not None and not isinstance(event, Unaccounted)]
    if len(known) < len(events):
        return "nothing could be proved of them together"
    total = account(
        dp_accounting.ComposedDpEvent(known),
        delta=plan.judged_delta,
        neighboring=resolve_defense(plan).neighboring,
    )
    if isinstance(total, Unaccounted):
        return f"nothing could be proved of them together ({total.reason})"
    return f"epsilon {total.epsilon:.4g} at delta {total.delta:g} would hold for all {len(known)} together"
