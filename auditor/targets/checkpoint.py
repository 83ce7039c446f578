"""A checkpoint that somebody else trained: read without running it, its candidates in an order that tells nothing."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from attacks.shadows import ShadowSource
from attacks.target import Target
from auditor.canaries.training_data import StoreBeside
from auditor.context import RunContext
from auditor.evidence.subgroups import check_slices
from auditor.plan.plan import Plan, TargetPlan
from auditor.plan.resolve import resolve_architecture, resolve_defense, resolve_recipe
from auditor.plan.sections import Source
from auditor.subject import AuditSubject, Description, OnTrust
from auditor.targets.checkpoint_file import Checkpoint as ReadCheckpoint
from auditor.targets.checkpoint_file import fit_weights, read_checkpoint
from auditor.targets.labelled_candidates import LabelledCandidates, load_sides, mixed
from auditor.targets.owner_claims import (
    MEMBERS,
    claim_on_trust,
    coins_on_trust,
    network_in_words,
    population_on_trust,
    refuse_unfair,
    stated_claim,
)
from auditor.targets.planted_candidates import planted_candidates
from auditor.targets.positive_control import positive_control
from auditor.targets.secondary import with_beside
from defenses.architectures import Architecture
from defenses.defense import Defense, History
from defenses.engine.store import ModelStore
from defenses.engine.training import Job
from defenses.errors import CheckpointError
from defenses.guarantee import Guarantee
from defenses.records import Inclusion, Records
from reports.records.grounds import HOLDOUT, SIDES

_NOT_COMMITTED = OnTrust("That the sealed file is the one from before the training: the plan names no commitment.")

_CANARIES = (
    "The candidates are planted canaries, made to be remembered: what is found of them bounds epsilon, and is no "
    "figure for ordinary records."
)


class Checkpoint(TargetPlan):
    """A trained model's file, the records that it was trained on, and records that it was not.

    `inclusion` is "fixed" unless the members were drawn from members and nonmembers together by independent fair coins,
    which only the owner of the training can know; then an epsilon can be shown. Instead of both sets, `canaries` names
    the sealed file of `auditor plant`, `data` what was planted (shadow models need it), and `commitment` what was
    published of the coins.
    """

    name: ClassVar[str] = "checkpoint"
    uses: ClassVar[frozenset[str]] = frozenset({"model", "training", "scheme", "gradients", "claim"})

    path: str
    members: Source | None = None
    nonmembers: Source | None = None
    canaries: str | None = None
    data: str | None = None
    commitment: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    population: Source | None = None
    classes: int | None = Field(default=None, ge=2)
    inclusion: Literal["fixed", "independent_coins"] = "fixed"

    @model_validator(mode="before")
    @classmethod
    def _canaries_toss_coins(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("canaries") is not None:
            return {"inclusion": "independent_coins"} | given
        return given

    @model_validator(mode="after")
    def _one_truth(self) -> Self:
        if self.canaries is None:
            if self.members is None or self.nonmembers is None:
                raise ValueError("give members and nonmembers, or canaries: the sealed file of auditor plant")
            if self.data is not None or self.commitment is not None:
                raise ValueError("data and commitment belong to canaries, and no canaries are given")
            return self
        said = [name for name in ("members", "nonmembers", "classes") if getattr(self, name) is not None]
        if self.inclusion == "fixed":
            said.append("inclusion")
        if said:
            raise ValueError(f"the sealed file of canaries says this itself: leave out {', '.join(said)}")
        return self

    def check(self, plan: Plan) -> None:
        """Refuse half a recipe, and shadow models that could not train on what the target was trained on."""
        if plan.scheme is not None and plan.training is None:
            raise ValueError("[scheme] without [training]: give the whole recipe, or put what is promised into [claim]")
        if self.canaries and not self.data and plan.training:
            raise ValueError(
                "[training] for canaries needs data under [checkpoint]: shadow models train on the planted data too; "
                "name it, or leave [training] out and run only attacks that need no shadow models"
            )

    def build(self, plan: Plan, context: RunContext) -> AuditSubject:
        """Read the checkpoint, train its control where the recipe is known, and make what else is attacked."""
        return with_beside(checkpoint_subject(plan, self, context), plan, context)


def checkpoint_subject(plan: Plan, entry: Checkpoint, context: RunContext) -> AuditSubject:
    """Read the target of a plan, and train its control where the recipe is known.

    Args:
        plan: What to audit.
        entry: The checkpoint and its records.
        context: Where and with what.

    Returns:
        The subject, ready to be attacked.

    Raises:
        AuditError: If checkpoint, data or plan do not fit; nothing has been trained then.
    """
    architecture = resolve_architecture(plan, allow_code=context.allow_code)
    defense = resolve_defense(plan)
    given = _candidates(entry, context)
    check_slices(plan.slices, given.candidates)
    if given.inclusion is Inclusion.INDEPENDENT:
        refuse_unfair(given.included)
    module = architecture.build(given.candidates.shape, given.candidates.classes, seed=0)
    checkpoint = _filled(module, entry, given.candidates, context)
    shadows = _shadows(plan, architecture, defense, given, context)
    target = Target(
        model=module.eval(),
        candidates=given.candidates,
        digest=checkpoint.digest,
        population=given.population,
        shadows=shadows,
    )
    control, reason = positive_control(plan, target, context)
    return AuditSubject(
        target=target,
        split=given.split,
        defense=defense,
        scheme="not stated" if plan.training is None else defense.title,
        claimed=_claim(plan, defense, shadows),
        proved=None,
        store=_store(given, context) if shadows is None else shadows.store,
        description=_description(plan, entry, target, given),
        control=control,
        control_reason=reason,
        seed_commitment=given.commitment,
        remarks=dict(given.remarks) | ({"checkpoint": list(checkpoint.notes)} if checkpoint.notes else {}),
    )


def _candidates(entry: Checkpoint, context: RunContext) -> LabelledCandidates:
    if entry.canaries is not None:
        return planted_candidates(
            entry.canaries, context, data=entry.data, commitment=entry.commitment, population=entry.population
        )
    assert entry.members is not None
    assert entry.nonmembers is not None
    sides = load_sides(entry.members, entry.nonmembers, entry.population, context)
    return mixed(sides, classes=entry.classes or sides.classes, coins=entry.inclusion == "independent_coins")


def _filled(module: nn.Module, entry: Checkpoint, candidates: Records, context: RunContext) -> ReadCheckpoint:
    """Read the checkpoint and put its weights into the network."""
    checkpoint = read_checkpoint(context.plan_folder / entry.path, max_memory=context.max_memory)
    try:
        fit_weights(module, checkpoint)
    except CheckpointError as error:
        if entry.canaries is None:
            raise
        raise CheckpointError(
            f"{error}. The canaries are records of shape {candidates.shape} in {candidates.classes} classes: make sure "
            f"that {entry.canaries} belongs to this model's data"
        ) from error
    return checkpoint


def _store(given: LabelledCandidates, context: RunContext) -> ModelStore:
    store = context.workspace.store()
    if given.beside is None:
        return store
    return StoreBeside(store.folder, executor=store.executor, beside=given.beside)


def _shadows(
    plan: Plan, architecture: Architecture, defense: Defense, given: LabelledCandidates, context: RunContext
) -> ShadowSource | None:
    """Return where models that train like the checkpoint can be had; None where its recipe is not known."""
    if plan.training is None:
        return None
    always = 0 if given.beside is None else len(given.beside)
    recipe = resolve_recipe(plan.training, architecture, always + round(given.probability * len(given.candidates)))
    return ShadowSource(
        Job(recipe, defense, given.candidates),
        _store(given, context),
        probability=given.probability,
        population=given.population,
        device=context.device,
    )


def _description(plan: Plan, entry: Checkpoint, target: Target, given: LabelledCandidates) -> Description:
    assert isinstance(target.model, nn.Module)
    alike = OnTrust("That the target was trained as the plan says, as the shadow models were.")
    return Description(
        called=network_in_words(plan, target.model),
        on_trust=(
            *(_planted(entry) if entry.canaries is not None else (MEMBERS, *coins_on_trust(given.split))),
            OnTrust("That these weights are those in use."),
            *(() if target.shadows is None else (alike,)),
            *population_on_trust(target, compared=True),
            *claim_on_trust(plan),
        ),
        limitations=() if entry.canaries is None else (_CANARIES,),
        # Sealed coins are the audit's own: nobody's word stands behind the two sides.
        tested_sides=frozenset({HOLDOUT}) if entry.canaries is not None else frozenset({HOLDOUT, SIDES}),
    )


def _planted(entry: Checkpoint) -> tuple[OnTrust, ...]:
    used = OnTrust(
        "That the training used every planted row, and never the sealed coins; the commitment shows only that "
        "the coins were fixed before.",
        about_sides=True,
    )
    return (used,) if entry.commitment is not None else (used, _NOT_COMMITTED)


def _claim(plan: Plan, defense: Defense, shadows: ShadowSource | None) -> Guarantee | None:
    """Return what is claimed of a checkpoint: by the plan, else by the scheme that it says it was trained under."""
    if plan.claim is not None:
        return stated_claim(plan)
    return None if shadows is None else defense.claimed(History(shadows.job.recipe.lots))
