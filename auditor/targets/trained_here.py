"""A target that the audit trains itself: each candidate in or out by a fair coin, so that one run yields a bound."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from auditor.context import Draw, Setting
from auditor.datasets.sources import load_source
from auditor.evidence.subgroups import check_slices
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.plan.sections import Data
from auditor.subject import Subject, module_digest
from auditor.targets.positive_control import positive_control
from auditor.white_box.implied_epsilon import check_watches
from defenses.accounting import price
from defenses.defense import Defense, History
from defenses.engine.store import ModelStore, digest_of_job
from defenses.engine.training import Job, resolve_device
from defenses.errors import PlanError
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.randomness import derive, stream
from defenses.records import Inclusion, Records, Split

COIN = 0.5
"""Chance with which a record of the pool is included."""


def trained_subject(plan: Plan, data: Data, setting: Setting) -> Subject:
    """Train the target of a plan.

    Args:
        plan: What to audit.
        data: Its records.
        setting: Where and with what.

    Returns:
        The subject, ready to be attacked.

    Raises:
        AuditError: If data or plan do not fit (nothing has been trained then), or the target diverges.
    """
    assert plan.training is not None
    architecture = resolve_architecture(plan, allow_code=setting.allow_code)
    defense = resolve_defense(plan)
    pool, outside = candidates_of(data, setting)
    check_slices(plan.slices, pool)
    recipe = resolve_recipe(plan.training, architecture, round(COIN * len(pool)))
    try:
        defense.gradient(recipe.lots)  # a scheme that cannot be calibrated for this run says so now
    except ValueError as error:
        raise PlanError(f"scheme {defense.name!r}: {error}") from error
    store = setting.workplace.store()
    try:
        job = Job(recipe, defense, pool, public=outside if len(outside) else None)
    except ValueError as error:
        raise PlanError(str(error)) from error
    if plan.white_box is not None or plan.prior_aware is not None:
        check_watches(plan, job)  # a scheme whose steps cannot be tested says so before anything is trained
    content = content_of_training(job, store, setting)
    roots = setting.roots(plan, content)
    splits = [_split(pool, len(outside), stream(root, "coins"), defense.neighboring) for root in roots]
    mine = 0 if setting.draw is None else setting.draw.index
    root, split = roots[mine], splits[mine]
    ensemble = store.train(
        job,
        np.stack([one.included for one in splits]),
        [derive(one, "target") for one in roots],
        device=setting.device,
        stage=f"training the target ({defense.title})",
        on_progress=setting.on_progress,
    )
    history = History(recipe.lots, ensemble.traces[mine].facts, ensemble.traces[mine].state)
    model = ensemble.one(mine)
    target = Target(
        model=model,
        candidates=pool,
        digest=module_digest(model),
        guarantee=_with_assumptions(price(defense, history, delta=plan.judged_delta), plan, pool, defense),
        population=outside if len(outside) else None,
        shadows=ShadowSource(
            job,
            store,
            probability=split.probability,
            population=outside if len(outside) else None,
            device=setting.device,
        ),
    )
    control, reason = positive_control(plan, target, setting)
    commitment = "none: the seed is given in the plan"
    if plan.seed is None:
        commitment = setting.workplace.commitment(content, root)
    return Subject(
        target=target,
        split=split,
        defense=defense,
        scheme=defense.title,
        claimed=defense.claimed(history),
        proved=target.guarantee,
        store=store,
        control=control,
        control_reason=reason,
        seed_commitment=commitment,
        facts=history.facts,
        event=defense.event(history),
        root=root,
    )


def content_of_training(job: Job, store: ModelStore, setting: Setting) -> str:
    """Return SHA-256 (hex) of everything that the released weights depend on, beside coins, sampling and noise.

    Data, recipe, scheme, code, torch, kind of device, and the stack that the models are trained in: whatever changes a
    model's key in the store changes this digest, and with it the secret root (`Setting.root`). Nothing else does.

    Args:
        job: What is trained.
        store: Where; it knows how many models make a stack.
        setting: Device, and which of several runs this is.
    """
    place = resolve_device(setting.device)
    draw = setting.draw or Draw("the target")
    width = store.layout(job, draw.count, place).width
    about = [digest_of_job(job, place.type), draw.name, draw.count, min(width, draw.count), COIN]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def candidates_of(data: Data, setting: Setting) -> tuple[Records, Records]:
    """Return the pool of candidates and the population outside all training.

    Raises:
        AuditError: If they cannot be found or read, or there are too few.
    """
    return _drawn(load_source(data, setting), data)


def _split(pool: Records, outside: int, rng: np.random.Generator, neighboring: Neighboring) -> Split:
    """Draw who is in by fair coins whose two sides are neighbours in the sense of the scheme."""
    pair = None
    if neighboring is Neighboring.REPLACE_ONE:
        included, pair = pool.swaps(rng)
    else:
        included = pool.coins(rng, COIN)
    return Split(
        canary=np.arange(len(pool)),
        included=included,
        population=np.arange(len(pool), len(pool) + outside),
        inclusion=Inclusion.INDEPENDENT if pair is None else Inclusion.SWAPPED,
        pair=pair,
    )


def _drawn(records: Records, data: Data) -> tuple[Records, Records]:
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
