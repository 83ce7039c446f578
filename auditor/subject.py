"""What is audited: a target trained here or a checkpoint, its candidates in an order that tells nothing, the truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from auditor.checkpoint import fit_weights, read_checkpoint
from auditor.datasets import check_records
from auditor.plan import Checkpoint, Data, Plan
from auditor.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.setting import Setting
from auditor.sources import joined, load_source
from defenses.accounting import price
from defenses.defense import Defense, History
from defenses.errors import PlanError
from defenses.guarantee import Guarantee, Neighboring, Unaccounted, Unit
from defenses.randomness import derive, stream
from defenses.records import BoolArray, Inclusion, Records, Split
from defenses.schemes.none import NoDefense
from defenses.store import ModelStore
from defenses.training import Job


@dataclass(frozen=True)
class Subject:
    """One target with everything that an audit of it needs.

    Attributes:
        target: What attacks are exposed to.
        split: The truth; indices are into candidates (then the population).
        defense: Scheme of the training, `NoDefense` where none is known.
        claimed: What is claimed, if anything.
        proved: What is proved, or why nothing is.
        store: Where this run keeps its models.
        control: The same job without protection, with its truth, or None.
        control_reason: Why there is no control.
        seed_commitment: Salted commitment to the secret seed, or why there is none.
        remarks: Remarks for the provenance, by name.
    """

    target: Target
    split: Split
    defense: Defense
    claimed: Guarantee | None
    proved: Guarantee | Unaccounted | None
    store: ModelStore
    control: tuple[Target, BoolArray] | None = None
    control_reason: str = ""
    seed_commitment: str = ""
    remarks: Mapping[str, Any] = field(default_factory=dict)


def build_subject(plan: Plan, setting: Setting) -> Subject:
    """Train or read the target of a plan.

    Args:
        plan: What to audit.
        setting: Where and with what.

    Returns:
        The subject, ready to be attacked.

    Raises:
        AuditError: If data, checkpoint or plan do not fit; nothing has been trained then.
    """
    return _trained(plan, plan.data, setting) if plan.data is not None else _given(plan, setting)


def _trained(plan: Plan, data: Data, setting: Setting) -> Subject:
    assert plan.training is not None
    architecture = resolve_architecture(plan, allow_code=setting.allow_code)
    defense = resolve_defense(plan)
    records = load_source(data, setting)
    if data.pool + data.population > len(records):
        raise PlanError(
            f"data: a pool of {data.pool} and a population of {data.population} need {data.pool + data.population} "
            f"records; {records.name} has {len(records)}"
        )
    order = stream(0, "pool", records.digest, data.pool, data.population).permutation(len(records))
    pool, outside = records.take(order[: data.pool]), records.take(order[data.pool : data.pool + data.population])
    root = plan.seed if plan.seed is not None else setting.workplace.secret_seed(plan.digest)
    split = Split(
        canary=np.arange(data.pool),
        included=stream(root, "coins").random(data.pool) < 0.5,
        population=np.arange(data.pool, data.pool + data.population),
        inclusion=Inclusion.INDEPENDENT,
    )
    expected = round(split.probability * data.pool)
    recipe = resolve_recipe(plan.training, architecture, expected)
    try:
        defense.gradient(recipe.lots)  # a scheme that cannot be calibrated for this run says so now
    except ValueError as error:
        raise PlanError(f"scheme {defense.name!r}: {error}") from error
    store = setting.workplace.store()
    job = Job(recipe, defense, pool)
    ensemble = store.train(
        job,
        split.included[None],
        [derive(root, "target")],
        device=setting.device,
        stage=f"training the target ({defense.title})",
        on_progress=setting.on_progress,
    )
    history = History(recipe.lots, ensemble.traces[0].facts, ensemble.traces[0].state)
    population = outside if data.population else None
    target = Target(
        model=ensemble.one(0),
        candidates=pool,
        digest=module_digest(ensemble.one(0)),
        guarantee=_with_assumptions(price(defense, history, delta=plan.delta), plan, pool),
        population=population,
        shadows=ShadowSource(
            job,
            store,
            probability=split.probability,
            population=None if population is None else population.x,
            device=setting.device,
        ),
    )
    control, reason = _control(plan, job, target, setting, store)
    return Subject(
        target=target,
        split=split,
        defense=defense,
        claimed=defense.claimed(history),
        proved=target.guarantee,
        control=control,
        control_reason=reason,
        seed_commitment=_commitment(plan, setting, root),
        store=store,
    )


def _given(plan: Plan, setting: Setting) -> Subject:
    assert plan.checkpoint is not None
    entry: Checkpoint = plan.checkpoint
    architecture = resolve_architecture(plan, allow_code=setting.allow_code)
    defense = resolve_defense(plan)
    members = load_source(entry.members, setting)
    nonmembers = load_source(entry.nonmembers, setting, like=members)
    outside = None if entry.population is None else load_source(entry.population, setting, like=members)
    classes = entry.classes or max(part.classes for part in (members, nonmembers, outside) if part is not None)
    check_records(members, nonmembers, classes=classes, shape=members.shape)
    both = joined(members, nonmembers, classes)
    # The attacker sees the candidates in an order of their own: members first would be the answer key.
    order = stream(0, "order", both.digest).permutation(len(both))
    candidates = both.take(order)
    included = order < len(members)
    module = architecture.build(members.shape, classes, seed=0)
    checkpoint = read_checkpoint(setting.plan_folder / entry.path)
    fit_weights(module, checkpoint)
    probability = len(members) / len(both)
    inclusion = Inclusion.INDEPENDENT if entry.inclusion == "independent_coins" else Inclusion.FIXED
    split = Split(
        canary=np.arange(len(both)),
        included=included,
        population=np.arange(len(both), len(both) + (len(outside) if outside is not None else 0)),
        inclusion=inclusion,
        probability=0.5 if inclusion is Inclusion.INDEPENDENT else probability,
    )
    store = setting.workplace.store()
    shadows = None
    if plan.training is not None:
        recipe = resolve_recipe(plan.training, architecture, len(members))
        shadows = ShadowSource(
            Job(recipe, defense, candidates),
            store,
            probability=probability,
            population=None if outside is None else outside.x,
            device=setting.device,
        )
    target = Target(
        model=module.eval(),
        candidates=candidates,
        digest=checkpoint.digest,
        population=outside,
        shadows=shadows,
    )
    control, reason = (
        None,
        "the checkpoint's recipe is not known, so no model could be trained like it without protection",
    )
    if shadows is not None:
        control, reason = _control(plan, shadows.job, target, setting, store)
    claimed = None
    if plan.claim is not None:
        claimed = Guarantee(
            plan.claim.epsilon,
            plan.claim.delta,
            Neighboring[plan.claim.neighboring.upper()],
            Unit[plan.claim.unit.upper()],
            accountant="claim of the plan",
        )
    return Subject(
        target=target,
        split=split,
        defense=defense,
        claimed=claimed,
        proved=None,
        control=control,
        control_reason=reason,
        seed_commitment="none: the target was trained elsewhere",
        store=store,
        remarks={"checkpoint": list(checkpoint.notes)} if checkpoint.notes else {},
    )


def _control(
    plan: Plan, job: Job, target: Target, setting: Setting, store: ModelStore
) -> tuple[tuple[Target, BoolArray] | None, str]:
    """Train the same job without protection; its attacks run on it with shadows of its own."""
    if not plan.control.enabled:
        return None, "the plan switched the positive control off"
    if isinstance(job.defense, NoDefense):
        return None, "the target itself is unprotected, so its own figures show what the attack can find"
    assert plan.training is not None
    recipe = resolve_recipe(
        plan.training, job.recipe.architecture, job.recipe.lots.expected_members, control=plan.control
    )
    open_job = Job(recipe, NoDefense(), job.records)
    assert target.shadows is not None
    source = ShadowSource(
        open_job,
        store,
        probability=target.shadows.probability,
        population=target.shadows.population,
        device=setting.device,
        stage="training shadow models of the control",
    )
    root = derive(0, "control", job.records.digest, repr(recipe))
    included = stream(root, "coins").random(len(job.records)) < source.probability
    ensemble = store.train(
        open_job,
        included[None],
        [derive(root, "target")],
        device=setting.device,
        stage="training the positive control (no protection)",
        on_progress=setting.on_progress,
    )
    model = ensemble.one(0)
    found = Target(
        model=model,
        candidates=job.records,
        digest=module_digest(model),
        population=target.population,
        shadows=source,
    )
    return (found, included), ""


def module_digest(module: nn.Module) -> str:
    """Return SHA-256 (hex) over the names and bytes of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _with_assumptions(found: Guarantee | Unaccounted, plan: Plan, records: Records) -> Guarantee | Unaccounted:
    if isinstance(found, Unaccounted):
        return found
    extra = []
    if plan.seed is not None:
        extra.append("the seed of this run stays secret; it was given in the plan, so the run is for audit use only")
    if not getattr(records.kind, "public_domain", True):
        extra.append("value ranges and categories were read from the data and are taken as public")
    assumptions = (*found.assumptions, *extra)
    return Guarantee(
        found.epsilon, found.delta, found.neighboring, found.unit, found.accountant, assumptions, found.epsilon_at
    )


def _commitment(plan: Plan, setting: Setting, root: int) -> str:
    if plan.seed is not None:
        return "none: the seed is given in the plan"
    return setting.workplace.commitment(plan.digest, root)
