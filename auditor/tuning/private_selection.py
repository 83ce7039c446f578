"""A choice of the setting that is itself private: a random number of tries, a noisy score for each, the best is kept.

What a walk looks at is not covered by any epsilon. Here each try trains under the scheme at a setting drawn at random
and is scored by a noisy count, and of all that happens only the best try is told: then what choosing costs is known.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import dp_accounting
import numpy as np
import torch
import torch.nn.functional as F
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from auditor.context import Replicate, RunContext
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_defense
from auditor.subject import AuditSubject
from auditor.targets.trained_here import candidates_of, nominal_recipe, records_of, trained_subject
from auditor.tuning.plan import PrivateScore, TunePlan
from defenses.accounting import account
from defenses.defense import History
from defenses.engine.code_digest import digest_of_training
from defenses.errors import PlanError
from defenses.guarantee import Neighboring, Unaccounted
from defenses.progress import Progress
from defenses.randomness import stream
from defenses.records import Records
from reports.records.tuning import Selection


def select(plan: TunePlan, plans: dict[float, Plan], settings: tuple[float, ...], context: RunContext) -> Selection:
    """Try settings at random and return the best: the least noise whose noisy score is within the limit.

    The score is the share of members whose loss is below that of all but a share `fpr` of the population, which is
    public, plus Gaussian noise. One record changes the count behind it by at most 1, so it is private like the model.

    Args:
        plan: Its `private_score`.
        plans: The audit plan of each setting.
        settings: The strongest noise first.
        context: Where to work; the number of tries and what is drawn come from its secret, or the plan's seed.

    Returns:
        The best try; ties are broken by the smaller score.

    Source: Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy", with a geometric number
    of tries. The score is ours.
    """
    asked = plan.tune.private_score
    assert asked is not None
    first = plans[settings[0]]
    # What the tries depend on and no more: another title or limit must not draw them again, other records must.
    pool, outside = candidates_of(records_of(first), context)
    about = [first.subject_digest, plan.tune.knob, *settings, repr(asked), pool.digest, outside.digest]
    about += [digest_of_training(), torch.__version__, context.place]
    content = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    draws = stream(context.root(first.seed, content), "private selection")
    tries = int(draws.geometric(1 / asked.tries))
    best: tuple[tuple[bool, int, float], Selection] | None = None
    for index in range(tries):
        place = int(draws.integers(len(settings)))
        value = settings[place]

        def within(progress: Progress, index: int = index) -> None:
            context.on_progress(replace(progress, stage=f"try {index + 1}: {progress.stage}"))

        own = replace(context, draw=Replicate(f"try {index}"), on_progress=within)
        bare = plans[value].model_copy(
            update={"control": first.control.model_copy(update={"enabled": False}), "white_box": None}
        )
        subject = trained_subject(bare, own)
        assert subject.root is not None
        # A score at another amount of noise, or of another population, must not share this one's noise.
        noise = stream(subject.root, "score", repr(asked), outside.digest).normal(scale=asked.noise)
        score = (members_found(subject, asked.fpr, context.place) + noise) / (len(subject.split.included) / 2)
        passes = score <= asked.maximum
        rank = (passes, place if passes else -place, -score)
        if best is None or rank > best[0]:
            best = rank, Selection(value=value, score=score, limit=asked.maximum, passes=passes)
    assert best is not None
    return best[1]


def priced(
    found: Selection, plan: TunePlan, plans: dict[float, Plan], weakest: float, context: RunContext
) -> Selection:
    """Return a selection with what choosing and one more model at the chosen setting cost together.

    Every try and the model after them is priced as one at the weakest noise, whose Renyi divergences are the largest:
    a setting drawn without the data is no worse than the worst of them, and a price that went by the setting that was
    chosen would depend on the data itself.

    Args:
        found: The selection.
        plan: Its `private_score`.
        plans: The audit plan of each setting.
        weakest: The setting with the least noise.
        context: Where code may be run.
    """
    asked = plan.tune.private_score
    assert asked is not None
    event = _event(plans[weakest], context)
    if isinstance(event, Unaccounted):
        return found.model_copy(update={"reason": event.reason})
    one = dp_accounting.ComposedDpEvent([event, dp_accounting.GaussianDpEvent(asked.noise)])
    total = dp_accounting.ComposedDpEvent([RepeatAndSelectDpEvent(one, asked.tries, 1.0), event])
    cost = account(total, delta=plans[found.value].judged_delta)
    if isinstance(cost, Unaccounted):
        return found.model_copy(update={"reason": cost.reason})
    return found.model_copy(update={"epsilon": cost.epsilon, "delta": cost.delta})


def members_found(subject: AuditSubject, fpr: float, device: str) -> int:
    """Return how many members lie beyond the threshold that a share of the population lies beyond."""
    target = subject.target
    assert target.population is not None
    outside = np.sort(_confidence(subject, target.population, device))[::-1]
    threshold = outside[min(int(np.floor(len(outside) * fpr)), len(outside) - 1)]
    members = _confidence(subject, target.candidates.take(subject.split.included), device)
    return int((members > threshold).sum())


def check_selection(first: Plan, score: PrivateScore, outside: Records) -> None:
    """Refuse a private selection that could not be private, or could not resolve its score.

    Raises:
        PlanError: Says what is missing.
    """
    if resolve_defense(first).neighboring is not Neighboring.ADD_REMOVE:
        raise PlanError("tune: private_selection counts members, which is priced for adding and removing a record only")
    spread = 2 * score.noise / records_of(first).pool
    if score.fpr + 2 * spread > score.maximum:
        raise PlanError(
            f"tune: noise of {score.noise:g} on the count moves the score by about {2 * spread:.3g}, more than lies "
            f"between false alarms of {score.fpr:g} and the limit of {score.maximum:g}; take less noise or more records"
        )
    least = int(np.ceil(1 / score.fpr))
    if len(outside) < least:
        raise PlanError(
            f"tune: private_selection sets its threshold by the population, and {len(outside)} records cannot resolve "
            f"false alarms of {score.fpr:g}; give [data] a population of at least {least}"
        )


def _event(plan: Plan, context: RunContext) -> Any:
    return resolve_defense(plan).event(History(nominal_recipe(plan, allow_code=context.allow_code).lots))


def _confidence(subject: AuditSubject, records: Records, device: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    logits = torch.as_tensor(subject.target.logits(records.x, device=device), dtype=torch.float64)
    return -F.cross_entropy(logits, torch.as_tensor(records.y), reduction="none").numpy()
