"""A checkpoint that somebody else trained: read without running it, its candidates in an order that tells nothing."""

import numpy as np
from scipy.stats import binom

from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from auditor.checkpoint import fit_weights, read_checkpoint
from auditor.control import positive_control
from auditor.datasets import check_records
from auditor.plan import Checkpoint, Plan
from auditor.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.setting import Setting
from auditor.sources import joined, load_source
from auditor.subject import Subject
from defenses.defense import Defense, History
from defenses.errors import DataError
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.randomness import stream
from defenses.records import BoolArray, Inclusion, Records, Split
from defenses.training import Job

# Fair coins fall this unevenly less than once in a thousand million audits.
_IMPLAUSIBLE = 1e-9


def checkpoint_subject(plan: Plan, entry: Checkpoint, setting: Setting) -> Subject:
    """Read the target of a plan, and train its control where the recipe is known.

    Args:
        plan: What to audit.
        entry: The checkpoint and its records.
        setting: Where and with what.

    Returns:
        The subject, ready to be attacked.

    Raises:
        AuditError: If checkpoint, data or plan do not fit; nothing has been trained then.
    """
    architecture = resolve_architecture(plan, allow_code=setting.allow_code)
    defense = resolve_defense(plan)
    members = load_source(entry.members, setting)
    nonmembers = load_source(entry.nonmembers, setting, like=members)
    outside = None if entry.population is None else load_source(entry.population, setting, like=members)
    classes = entry.classes or max(part.classes for part in (members, nonmembers, outside) if part is not None)
    check_records(members, nonmembers, classes=classes, shape=members.shape)
    if outside is not None:
        _refuse_overlap(outside, members, nonmembers)
    both = joined(members, nonmembers, classes)
    # The attacker sees the candidates in an order of their own: members first would be the answer key.
    order = stream(0, "order", both.digest).permutation(len(both))
    candidates, included = both.take(order), order < len(members)
    coins = entry.inclusion == "independent_coins"
    if coins:
        _refuse_unfair(included)
    # With coins the attacker may know the chance, one half, but not how many of them fell on which side.
    probability = 0.5 if coins else len(members) / len(both)
    module = architecture.build(members.shape, classes, seed=0)
    checkpoint = read_checkpoint(setting.plan_folder / entry.path)
    fit_weights(module, checkpoint)
    store = setting.workplace.store()
    shadows = None
    if plan.training is not None:
        recipe = resolve_recipe(plan.training, architecture, round(probability * len(both)))
        shadows = ShadowSource(
            Job(recipe, defense, candidates),
            store,
            probability=probability,
            population=outside,
            device=setting.device,
        )
    target = Target(
        model=module.eval(), candidates=candidates, digest=checkpoint.digest, population=outside, shadows=shadows
    )
    control, reason = positive_control(plan, target, setting)
    return Subject(
        target=target,
        split=Split(
            canary=np.arange(len(both)),
            included=included,
            population=np.arange(len(both), len(both) + (0 if outside is None else len(outside))),
            inclusion=Inclusion.INDEPENDENT if coins else Inclusion.FIXED,
            probability=probability,
        ),
        defense=defense,
        scheme="not stated" if plan.training is None else defense.title,
        claimed=_claim(plan, defense, shadows),
        proved=None,
        store=store,
        control=control,
        control_reason=reason,
        seed_commitment="none: the target was trained elsewhere",
        remarks={"checkpoint": list(checkpoint.notes)} if checkpoint.notes else {},
    )


def _refuse_overlap(outside: Records, *inside: Records) -> None:
    """Refuse a population that shares records with the candidates: it must be outside all training."""
    known = {digest for records in inside for digest in records.row_digests()}
    shared = sum(digest in known for digest in outside.row_digests())
    if shared:
        raise DataError(
            f"{shared} of {len(outside)} population records are also candidates; the population must be records that "
            "neither the target nor a shadow model trains on: leave them out"
        )


def _refuse_unfair(included: BoolArray) -> None:
    """Refuse a split that fair coins do not give, before anything is trained on the word that they did."""
    members, total = int(included.sum()), len(included)
    if 2 * binom.cdf(min(members, total - members), total, 0.5) < _IMPLAUSIBLE:
        raise DataError(
            f"{members} of {total} candidates are members, which fair coins do not do; give both sides as the coins "
            'fell, or inclusion = "fixed"'
        )


def _claim(plan: Plan, defense: Defense, shadows: ShadowSource | None) -> Guarantee | None:
    """Return what is claimed of a checkpoint: by the plan, else by the scheme that it says it was trained under."""
    if plan.claim is None:
        return None if shadows is None else defense.claimed(History(shadows.job.recipe.lots))
    return Guarantee(
        plan.claim.epsilon,
        plan.claim.delta,
        Neighboring[plan.claim.neighboring.upper()],
        Unit[plan.claim.unit.upper()],
        accountant="claim of the plan",
    )
