"""A target that the audit trains itself: each candidate in or out by a fair coin, so that one run yields a bound."""

import hashlib
import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from attacks.shadows import ShadowSource
from attacks.target import Target
from auditor.context import Replicate, RunContext
from auditor.datasets.sources import load_source
from auditor.evidence.subgroups import check_slices
from auditor.plan.plan import WATCHES_STEPS, Plan, TargetPlan
from auditor.plan.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.plan.sections import Source
from auditor.subject import AuditSubject, Description, OnTrust, module_digest
from auditor.targets.owner_claims import network_in_words
from auditor.targets.positive_control import positive_control
from auditor.targets.secondary import with_beside
from auditor.white_box.implied_epsilon import check_watches
from defenses.accounting import account_run
from defenses.defense import Defense, History, StepPromise
from defenses.engine.store import ModelStore, digest_of_job
from defenses.engine.training import Job, resolve_device
from defenses.errors import PlanError
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.randomness import derive, stream
from defenses.recipe import Recipe
from defenses.records import Inclusion, Records, Split

COIN = 0.5
"""Chance with which a record of the pool is included."""

_NO_SECRET = "none: the seed is given in the plan"


class TrainedHere(TargetPlan, Source):
    """The records of an audit that trains its own target.

    `pool` records are candidates, each trained on by a fair coin; `population` records stay outside all training.
    """

    name: ClassVar[str] = "data"
    uses: ClassVar[frozenset[str]] = frozenset(
        {"model", "training", "scheme", "gradients", "generator", "seed", "white_box", "prior_aware"}
    )

    pool: int = Field(ge=20)
    population: int = Field(default=0, ge=0)

    def check(self, plan: Plan) -> None:
        """Refuse a plan without a recipe, and an audit of the steps of a training without a scheme."""
        if plan.training is None:
            raise ValueError("[data] without [training]: say how the target is to be trained")
        for name in ("white_box", "prior_aware"):
            if getattr(plan, name) is not None and plan.unprotected:
                raise ValueError(WATCHES_STEPS.format(name))

    def build(self, plan: Plan, context: RunContext) -> AuditSubject:
        """Train the target, and make what else the plan wants attacked; see `TargetPlan.build`."""
        return with_beside(trained_subject(plan, context), plan, context)


def records_of(plan: Plan) -> TrainedHere:
    """Return the table of a plan whose target is trained here.

    Raises:
        PlanError: If the plan is about another kind of target.
    """
    if not isinstance(plan.target, TrainedHere):
        raise PlanError(f"the target is trained here for this: give [data] in place of [{plan.target.name}]")
    return plan.target


def trained_subject(plan: Plan, context: RunContext) -> AuditSubject:
    """Train the target of a plan.

    Args:
        plan: What to audit; its target is trained here.
        context: Where and with what.

    Returns:
        The subject, ready to be attacked.

    Raises:
        AuditError: If data or plan do not fit (nothing has been trained then), or the target diverges.
    """
    job, outside = _job(plan, context)
    pool, defense, store = job.records, job.defense, context.workspace.store()
    content = content_of_training(job, store, context)
    roots = context.roots(plan.seed, content)
    splits = [_split(pool, stream(root, "coins"), defense.neighboring) for root in roots]
    mine = 0 if context.draw is None else context.draw.index
    root, split = roots[mine], splits[mine]
    ensemble = store.train(
        job,
        np.stack([one.included for one in splits]),
        [derive(one, "target") for one in roots],
        device=context.device,
        stage=f"training the target ({defense.title})",
        on_progress=context.on_progress,
    )
    history = History(job.recipe.lots, ensemble.traces[mine].facts, ensemble.traces[mine].state)
    model = ensemble.one(mine)
    target = Target(
        model=model,
        candidates=pool,
        digest=module_digest(model),
        guarantee=_with_assumptions(account_run(defense, history, delta=plan.judged_delta), plan, pool, defense),
        population=outside,
        shadows=ShadowSource(job, store, probability=split.probability, population=outside, device=context.device),
    )
    control, reason = positive_control(plan, target, context)
    secret = plan.seed is None
    return AuditSubject(
        target=target,
        split=split,
        defense=defense,
        scheme=defense.title,
        claimed=defense.claimed(history),
        proved=target.guarantee,
        store=store,
        description=Description(network_in_words(plan, model), on_trust=_on_trust(plan)),
        control=control,
        control_reason=reason,
        seed_commitment=context.workspace.commitment(content, root) if secret else _NO_SECRET,
        facts=history.facts,
        event=defense.event(history),
        root=root,
    )


def _job(plan: Plan, context: RunContext) -> tuple[Job, Records | None]:
    """Return what is trained, and the population outside all training, after everything that can be refused was."""
    assert plan.training is not None
    architecture = resolve_architecture(plan, allow_code=context.allow_code)
    defense = resolve_defense(plan)
    pool, rest = candidates_of(records_of(plan), context)
    check_slices(plan.slices, pool)
    recipe = resolve_recipe(plan.training, architecture, round(COIN * len(pool)))
    outside = rest if len(rest) else None
    try:
        defense.gradient(recipe.lots)  # a scheme that cannot be calibrated for this run says so now
    except ValueError as error:
        raise PlanError(f"scheme {defense.name!r}: {error}") from error
    try:
        job = Job(recipe, defense, pool, public=outside)
    except ValueError as error:
        raise PlanError(str(error)) from error
    if plan.white_box is not None or plan.prior_aware is not None:
        check_watches(plan.terms, job)  # a scheme whose steps cannot be tested says so before anything is trained
    return job, outside


def nominal_recipe(plan: Plan, *, allow_code: bool) -> Recipe:
    """Return the recipe of a plan whose target is trained here, for the expected number of members."""
    assert plan.training is not None
    architecture = resolve_architecture(plan, allow_code=allow_code)
    return resolve_recipe(plan.training, architecture, round(COIN * records_of(plan).pool))


def promised_steps(plan: Plan, *, allow_code: bool) -> StepPromise | None:
    """Return what a plan's scheme says of its steps, so that they can be tested; None where that is not known.

    A budget that cannot be met promises nothing either; the audit says so.
    """
    if plan.training is None or not isinstance(plan.target, TrainedHere):
        return None
    lots, defense = nominal_recipe(plan, allow_code=allow_code).lots, resolve_defense(plan)
    try:
        return defense.steps(lots)
    except ValueError:
        return None


def content_of_training(job: Job, store: ModelStore, context: RunContext) -> str:
    """Return SHA-256 (hex) of everything that the released weights depend on, beside coins, sampling and noise.

    Data, recipe, scheme, code, torch, kind of device, and the stack that the models are trained in: whatever changes a
    model's key in the store changes this digest, and with it the secret root (`RunContext.root`). Nothing else does.

    Args:
        job: What is trained.
        store: Where; it knows how many models make a stack.
        context: Device, and which of several runs this is.
    """
    place = resolve_device(context.device)
    draw = context.draw or Replicate("the target")
    width = store.layout(job, draw.count, place).width
    about = [digest_of_job(job, place.type), draw.name, draw.count, min(width, draw.count), COIN]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def candidates_of(data: TrainedHere, context: RunContext) -> tuple[Records, Records]:
    """Return the pool of candidates and the population outside all training.

    Raises:
        AuditError: If they cannot be found or read, or there are too few.
    """
    return _drawn(load_source(data, context), data)


def _split(pool: Records, rng: np.random.Generator, neighboring: Neighboring) -> Split:
    """Draw who is in by fair coins whose two sides are neighbours in the sense of the scheme."""
    pair = None
    if neighboring is Neighboring.REPLACE_ONE:
        included, pair = pool.swaps(rng)
    else:
        included = pool.coins(rng, COIN)
    return Split(
        included=included,
        inclusion=Inclusion.INDEPENDENT if pair is None else Inclusion.SWAPPED,
        pair=pair,
    )


def _drawn(records: Records, data: TrainedHere) -> tuple[Records, Records]:
    """Draw pool and population by the digest of the data; what repeats a pool record is not outside training."""
    order = stream(0, "pool", records.digest, data.pool, data.population).permutation(len(records))
    pool, rest = records.take(order[: data.pool]), records.take(order[data.pool :])
    if data.population:
        inside = set(pool.row_digests())
        fresh = np.array([digest not in inside for digest in rest.row_digests()], dtype=np.bool_)
        if pool.units is not None and rest.units is not None:
            fresh &= ~np.isin(rest.units, pool.units)
        rest = rest.take(fresh)
    if len(pool) < data.pool or len(rest) < data.population:
        raise PlanError(
            f"data: a pool of {data.pool} and a population of {data.population} were asked for; {records.name} has "
            f"{len(records)} records, {len(rest)} of them beside the pool and unlike any in it"
        )
    return pool, rest.take(np.arange(data.population))


def _on_trust(plan: Plan) -> tuple[OnTrust, ...]:
    found = [OnTrust("That the model to be released is trained on such records and by such a recipe as this one.")]
    if plan.seed is not None:
        found.append(
            OnTrust("That nobody uses the seed, which stands in the plan: who knows it knows coins and noise.")
        )
    return tuple(found)


def _with_assumptions(
    found: Guarantee | Unaccounted, plan: Plan, records: Records, defense: Defense
) -> Guarantee | Unaccounted:
    if isinstance(found, Unaccounted):
        return found
    extra = []
    if plan.seed is not None:
        extra.append("the run is for audit use only: its seed stands in the plan, and who knows it knows the noise")
    if defense.uses_public:
        extra.append("the records of the population are public: nobody of the training set is among them")
    if not getattr(records.kind, "public_domain", True):
        extra.append("value ranges and categories were read from the data and are taken as public")
    return replace(found, assumptions=(*found.assumptions, *extra))
