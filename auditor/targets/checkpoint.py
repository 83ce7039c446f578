"""A checkpoint that somebody else trained: read without running it, its candidates in an order that tells nothing."""

from dataclasses import replace

import numpy as np

from attacks.shadows import ShadowSource
from attacks.threat_model import Target
from auditor.canaries.training_data import StoreBeside
from auditor.context import Setting
from auditor.datasets import check_records
from auditor.datasets.sources import joined, load_source, refuse_overlap
from auditor.evidence.subgroups import check_slices
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.plan.sections import Checkpoint
from auditor.subject import Subject
from auditor.targets.checkpoint_file import fit_weights, read_checkpoint
from auditor.targets.labelled_candidates import Given
from auditor.targets.owner_claims import refuse_unfair, stated_claim
from auditor.targets.planted_candidates import planted_candidates
from auditor.targets.positive_control import positive_control
from defenses.defense import Defense, History
from defenses.engine.training import Job
from defenses.errors import CheckpointError
from defenses.guarantee import Guarantee
from defenses.randomness import stream
from defenses.records import Inclusion, Split


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
    given = _two_sides(entry, setting) if entry.canaries is None else planted_candidates(entry, setting)
    candidates, outside, probability = given.candidates, given.population, given.probability
    check_slices(plan.slices, candidates)
    if outside is not None:
        refuse_overlap(outside, candidates, *([] if given.beside is None else [given.beside]))
    if given.inclusion is Inclusion.INDEPENDENT:
        refuse_unfair(given.included)
    module = architecture.build(candidates.shape, candidates.classes, seed=0)
    checkpoint = read_checkpoint(setting.plan_folder / entry.path, max_memory=setting.max_memory)
    try:
        fit_weights(module, checkpoint)
    except CheckpointError as error:
        if entry.canaries is None:
            raise
        raise CheckpointError(
            f"{error}. The canaries are records of shape {candidates.shape} in {candidates.classes} classes: make sure "
            f"that {entry.canaries} belongs to this model's data"
        ) from error
    store = setting.workplace.store()
    if given.beside is not None:
        store = StoreBeside(store.folder, executor=store.executor, beside=given.beside)
    shadows = None
    if plan.training is not None:
        always = 0 if given.beside is None else len(given.beside)
        recipe = resolve_recipe(plan.training, architecture, always + round(probability * len(candidates)))
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
            canary=np.arange(len(candidates)),
            included=given.included,
            population=len(candidates) + np.arange(0 if outside is None else len(outside)),
            inclusion=given.inclusion,
            probability=probability,
        ),
        defense=defense,
        scheme="not stated" if plan.training is None else defense.title,
        claimed=_claim(plan, defense, shadows),
        proved=None,
        store=store,
        control=control,
        control_reason=reason,
        seed_commitment=given.commitment,
        remarks=dict(given.remarks) | ({"checkpoint": list(checkpoint.notes)} if checkpoint.notes else {}),
    )


def _two_sides(entry: Checkpoint, setting: Setting) -> Given:
    """Return members and nonmembers as candidates in an order of their own."""
    assert entry.members is not None
    assert entry.nonmembers is not None
    members = load_source(entry.members, setting)
    nonmembers = load_source(entry.nonmembers, setting, like=members)
    outside = None if entry.population is None else load_source(entry.population, setting, like=members)
    classes = entry.classes or max(part.classes for part in (members, nonmembers, outside) if part is not None)
    check_records(members, nonmembers, classes=classes, shape=members.shape)
    both = joined(members, nonmembers, classes)
    # The attacker sees the candidates in an order of their own: members first would be the answer key.
    order = stream(0, "order", both.digest).permutation(len(both))
    coins = entry.inclusion == "independent_coins"
    return Given(
        candidates=both.take(order),
        included=order < len(members),
        inclusion=Inclusion.INDEPENDENT if coins else Inclusion.FIXED,
        # With coins the attacker may know the chance, one half, but not how many of them fell on which side.
        probability=0.5 if coins else len(members) / len(both),
        population=None if outside is None else replace(outside, classes=classes),
    )


def _claim(plan: Plan, defense: Defense, shadows: ShadowSource | None) -> Guarantee | None:
    """Return what is claimed of a checkpoint: by the plan, else by the scheme that it says it was trained under."""
    if plan.claim is not None:
        return stated_claim(plan)
    return None if shadows is None else defense.claimed(History(shadows.job.recipe.lots))
