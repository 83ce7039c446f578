"""Run a tuning: check that it can come to an answer, say what it will take, search, and write down what came of it."""

import datetime
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from attacks.protocol import Attack
from auditor.context import RunContext
from auditor.files.paths import plan_without_paths
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_attacks, resolve_defense
from auditor.plan.sections import WhiteBox
from auditor.report_builder import device_name, versions
from auditor.targets.gradient_updates import GRADIENTS, OTHERS
from auditor.targets.trained_here import candidates_of, nominal_recipe, promised_steps, records_of
from auditor.tuning.judging import STEPS, LimitProbe
from auditor.tuning.looking import Evaluator, UnderpoweredError, limit_probes
from auditor.tuning.plan import TunePlan
from auditor.tuning.power import check_resolvable, check_steps_resolvable
from auditor.tuning.price import price_of_release
from auditor.tuning.private_selection import check_selection, priced, select
from auditor.tuning.search import SELECTION, SearchResult, confirm, error_of_look, looks_at_most, search
from auditor.tuning.words import headline, remedies
from auditor.verdicts.findings import check_limits
from defenses.accounting import account_run
from defenses.defense import History
from defenses.errors import PlanError
from defenses.guarantee import Guarantee
from defenses.private_files import write_private
from defenses.records import Records
from reports.measures import MEMBERSHIP, measure
from reports.records.tuning import Look, Outcome, Selection, Tuning

MODEL = "model.safetensors"

OnLook = Callable[[Look, float], None]
OnStart = Callable[[str], None]


def run_tuning(
    plan: TunePlan,
    context: RunContext,
    folder: Path,
    *,
    on_start: OnStart = lambda said: None,
    on_look: OnLook = lambda look, left: None,
) -> Tuning:
    """Find the least noise at which what attacks find stays under its limits.

    Every model, claim and secret is kept in the workplace, so a run that was stopped comes to the same looks and the
    same answer without training anything twice.

    Args:
        plan: What to look for.
        context: Where to work and with what.
        folder: Where the audits' reports go, and `model.safetensors`: the model that was found, unless the plan gives
            its seed.
        on_start: Told, before anything is trained, what will be.
        on_look: Told after each look, with the seconds that are left at most.

    Returns:
        The record.

    Raises:
        AuditError: If the plan does not fit, or could not come to an answer with so few records; nothing has been
            trained then.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    tune, job = plan.tune, _prepared(plan, context)
    tries = tune.private_score.tries if tune.private_score is not None else None
    on_start(_announced(job.trainings, len(job.settings), job.most, tries))
    eyes = Evaluator(
        {value: job.plans[value] for value in job.settings},
        job.asked,
        context,
        folder,
        tune.replicates,
        job.most,
        minimum_accuracy=tune.minimum_accuracy,
        on_look=on_look,
    )
    found, selection, blind = _searched(plan, job.plans, job.settings, eyes)
    record = _record(plan, job, eyes, found, selection).model_copy(
        update={
            "started": started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - clock,
        }
    )
    if found.answer is not None and eyes.final is not None and job.first.seed is None:
        write_private(folder / MODEL, safetensors.torch.save(_plain(eyes.final)))
    return record.model_copy(
        update={
            "headline": headline(record, blind),
            "remedies": remedies(record, blind),
            "price": price_of_release(job.first, record, eyes.events),
        }
    )


@dataclass(frozen=True)
class _Prepared:
    """A tuning that can come to an answer.

    Attributes:
        plans: Knob -> the audit plan of that setting.
        first: The plan of the strongest noise.
        pool: The candidates.
        settings: Those whose proved epsilon is not above the ceiling, the strongest noise first.
        asked: The limits.
        most: Looks at most.
        trainings: What is trained at most, by what it is for.
    """

    plans: dict[float, Plan]
    first: Plan
    pool: Records
    settings: tuple[float, ...]
    asked: list[LimitProbe]
    most: int
    trainings: dict[str, int]


def _prepared(plan: TunePlan, context: RunContext) -> _Prepared:
    """Refuse a tuning that does not fit, or could not come to an answer, before anything is trained."""
    tune = plan.tune
    plans = {value: _with_eyes(plan.at(value), context) for value in plan.settings}
    first = plans[plan.settings[0]]
    attacks = [attack for attack, _ in resolve_attacks(first)]
    check_limits(first.terms, attacks)
    pool, outside = candidates_of(records_of(first), context)
    if tune.private_score is not None:
        check_selection(first, tune.private_score, outside)
    settings = _under_ceiling(plan, {value: _proved(one, context) for value, one in plans.items()})
    asked = limit_probes(first, attacks, epsilon=tune.epsilon)
    if not asked:
        raise PlanError("limits: none of them holds for an attack of this plan, so there is nothing to tune by")
    most = looks_at_most(tune.mode, len(settings))
    error = error_of_look(tune.mode, len(settings), confidence=first.confidence)
    _check_resolvable(first, asked, pool, level=1 - 2 * error, models=tune.replicates)
    if tune.epsilon is not None:
        _check_steps(plans[settings[0]], tune.epsilon, context, error=error)
    trainings = _trainings(first, attacks, looks=most, replicates=tune.replicates)
    return _Prepared(plans, first, pool, settings, asked, most, trainings)


def _record(
    plan: TunePlan, job: _Prepared, eyes: Evaluator, found: SearchResult, selection: Selection | None
) -> Tuning:
    """Write down what was found, but for the words, the price and the times."""
    tune, first = plan.tune, job.first
    assert first.model is not None
    return Tuning(
        title=plan.title,
        data=job.pool.name,
        model=first.model.architecture,
        pool=len(job.pool),
        scheme=resolve_defense(first).title,
        knob=tune.knob,
        settings=list(job.settings),
        above_ceiling=[value for value in plan.settings if value not in job.settings],
        mode=tune.mode,
        about=tune.about,
        models=tune.replicates,
        confidence=first.confidence,
        looks_at_most=job.most,
        epsilon_ceiling=tune.epsilon_ceiling,
        minimum_accuracy=tune.minimum_accuracy,
        accuracy_unprotected=eyes.unprotected,
        sights=eyes.sights,
        looks=list(found.looks),
        selection=selection,
        outcome=found.outcome,
        answer=found.answer,
        headline="",
        trainings=job.trainings,
        plan=plan_without_paths(plan.content),
        plan_digest=plan.digest,
        device=device_name(eyes.context.place),
        versions=versions(),
    )


def _searched(
    plan: TunePlan, plans: dict[float, Plan], settings: tuple[float, ...], eyes: Evaluator
) -> tuple[SearchResult, Selection | None, str | None]:
    """Return what the search came to, the private selection if it was one, and why there was no walk if so."""
    confidence, floor = plans[settings[0]].confidence, plan.tune.minimum_accuracy
    selection: Selection | None = None
    try:
        if plan.tune.mode != SELECTION:
            found = search(settings, eyes.look, mode=plan.tune.mode, confidence=confidence, minimum_accuracy=floor)
            return found, None, None
        selection = priced(select(plan, plans, settings, eyes.context), plan, plans, settings[-1], eyes.context)
        if not selection.passes:
            return SearchResult(Outcome.UNDECIDED, None, ()), selection, None
        place = settings.index(selection.value)
        return confirm(settings, place, eyes.look, confidence=confidence, minimum_accuracy=floor), selection, None
    except UnderpoweredError as stop:
        return SearchResult(Outcome.BLIND, None, ()), selection, str(stop)


def _plain(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu().contiguous() for name, value in model.state_dict().items()}


def _with_eyes(plan: Plan, context: RunContext) -> Plan:
    """Return a plan that lists no attacks with gradient canaries beside the usual ones, where steps can be tested."""
    if plan.attacks or plan.white_box is not None or promised_steps(plan, allow_code=context.allow_code) is None:
        return plan
    return plan.model_copy(update={"white_box": WhiteBox()})


def _proved(plan: Plan, context: RunContext) -> float | None:
    """Return what will be proved of a run at one setting, or None if nothing will be, or only the run will tell."""
    assert plan.training is not None
    recipe = nominal_recipe(plan, allow_code=context.allow_code)
    try:
        found = account_run(resolve_defense(plan), History(recipe.lots), delta=plan.judged_delta)
    except KeyError:  # a fact of the preparation, or a state that only the run knows
        return None
    except ValueError as error:
        raise PlanError(f"tune: {plan.title.rpartition(': ')[2]}: {error}") from error
    return found.epsilon if isinstance(found, Guarantee) else None


def _under_ceiling(plan: TunePlan, proved: dict[float, float | None]) -> tuple[float, ...]:
    """Return the settings whose proved epsilon is not above the ceiling, the strongest noise first."""
    known = [(value, proved[value]) for value in plan.settings]
    rising = [epsilon for _, epsilon in known if epsilon is not None]
    if any(later < earlier * (1 - 1e-6) for earlier, later in itertools.pairwise(rising)):
        raise PlanError(
            f"tune: epsilon falls from {rising[0]:.4g} to {rising[-1]:.4g} where less noise was to come; turn "
            "`stronger` round"
        )
    ceiling = plan.tune.epsilon_ceiling
    if ceiling is None:
        return plan.settings
    unknown = [value for value, epsilon in known if epsilon is None]
    if unknown:
        raise PlanError(
            f"tune: nothing is proved at {plan.tune.knob} {unknown[0]:g} before it is trained, so it cannot be held to "
            f"an epsilon_ceiling of {ceiling:g}; leave that out, or take a scheme that can be priced"
        )
    kept = tuple(value for value, epsilon in known if (epsilon or 0.0) <= ceiling)
    if not kept:
        raise PlanError(
            f"tune: every setting has an epsilon above the ceiling of {ceiling:g}, from {rising[0]:.4g} up; give more "
            "noise or a higher ceiling"
        )
    return kept


def _check_resolvable(plan: Plan, asked: Sequence[LimitProbe], pool: Records, *, level: float, models: int) -> None:
    units = len(pool) if pool.units is None else len(set(pool.units.tolist()))
    for one in asked:
        if one.attack == STEPS:
            continue
        inside, outside, what = units // 2, units - units // 2, f"half of a pool of {units:,} each"
        if one.about == GRADIENTS and plan.gradients is not None:
            inside = plan.gradients.victims * plan.gradients.batch_size
            outside, what = max(OTHERS, inside), f"{plan.gradients.victims} victims and others beside them"
        if one.baseline is not None and one.limit <= one.baseline:
            raise PlanError(
                f"limits: {one.measure} of {one.attack} may be at most {one.limit:g}, which guessing reaches; "
                "more records would not help"
            )
        if MEMBERSHIP in measure(one.measure).claims:  # the spread of other measures is not known before
            check_resolvable(one, inside, outside, level=level, models=models, what=what)


def _check_steps(plan: Plan, limit: float, context: RunContext, *, error: float) -> None:
    promise, watch = promised_steps(plan, allow_code=context.allow_code), plan.white_box
    if promise is None or watch is None:
        return  # the audit says so
    lots = nominal_recipe(plan, allow_code=context.allow_code).lots
    each = lots.steps_per_epoch
    steps = min(lots.epochs, -(-watch.steps // each)) * each
    # The claims of an audit share half of its error, and [white_box] is one of two.
    check_steps_resolvable(limit, promise, watch.canaries * steps, error=error / 4, delta=plan.judged_delta)


def _trainings(plan: Plan, attacks: Sequence[Attack], *, looks: int, replicates: int) -> dict[str, int]:
    """Return how many models are trained at most, by what they are for."""
    shadows = max((getattr(attack, "shadows", 0) for attack in attacks if attack.requires.recipe), default=0)
    settings = max(looks - 1, 1)
    found = {
        "models to judge": looks * replicates,
        "shadow models": settings * shadows,  # the final look has those of its setting
        "the control": 1,
        "shadow models of the control": shadows,
        "runs watched step by step": looks if plan.white_box is not None else 0,
        "generators": looks * replicates + 1 if plan.generator is not None else 0,
        "models with a record added": looks * plan.prior_aware.trials if plan.prior_aware is not None else 0,
    }
    return {name: count for name, count in found.items() if count}


def _announced(trainings: dict[str, int], settings: int, looks: int, tries: float | None) -> str:
    parts = ", ".join(f"{count:,} {name}" for name, count in trainings.items())
    before = "" if tries is None else f" A random number of tries before, {tries:g} on average, one model each."
    return (
        f"{settings} setting{'s' if settings > 1 else ''}, at most {looks} look{'s' if looks > 1 else ''}, the final "
        f"one included; at most {sum(trainings.values()):,} trainings: {parts}.{before} What is there from an earlier "
        "run is not trained again."
    )
