"""What the steps of a plan's own training show: gradient canaries in one more run, or an added record in many."""

from dataclasses import replace

import numpy as np
from torch import nn

from attacks.shadows import ShadowSource
from auditor.context import RunContext
from auditor.plan.terms import Terms
from auditor.subject import AuditSubject
from auditor.white_box.gradient_canaries import Directions
from auditor.white_box.prior_aware import THRESHOLD_MOVES, PriorAware, audit_reconstruction
from auditor.white_box.step_audit import WhiteBoxOptions, audit_steps, claim_of
from auditor.white_box.step_bounds import StepAudit, StepClaim
from defenses.defense import Job
from defenses.errors import PlanError
from defenses.randomness import derive


def step_claim(job: Job) -> StepClaim:
    """Return what a job's scheme says of its steps.

    Raises:
        PlanError: If nothing is known of it, so that [white_box] has nothing to test.
    """
    try:
        return claim_of(job)
    except ValueError as error:
        raise PlanError(f"white_box: {error}") from error


def check_watches(plan: Terms, job: Job) -> None:
    """Refuse what a plan asks of the steps and cannot get.

    Raises:
        PlanError: If nothing is known of them, or its `prior_aware` cannot follow them.
    """
    if step_claim(job).moves and plan.prior_aware is not None:
        raise PlanError(f"prior_aware: {THRESHOLD_MOVES.format(job.defense.name)}")


def try_reconstruction(
    plan: Terms, subject: AuditSubject, context: RunContext, *, confidence: float
) -> PriorAware | None:
    """Name the added one of several records from the steps of runs of the same recipe; None if the plan does not ask.

    Args:
        plan: Its `prior_aware`.
        subject: A target that was trained here.
        context: Where to train.
        confidence: Of the lower limit, in (0, 1).

    Raises:
        PlanError: If there are too few records.
    """
    if plan.prior_aware is None:
        return None
    assert isinstance(subject.target.shadows, ShadowSource)
    job, asked = subject.target.shadows.job, plan.prior_aware
    try:
        return audit_reconstruction(
            job,
            candidates=asked.candidates,
            trials=asked.trials,
            seed=derive(0, "prior aware", plan.subject_digest, job.records.digest, *context.names),
            confidence=confidence,
            claim=step_claim(job),
            device=context.device,
            on_progress=context.on_progress,
        )
    except ValueError as error:
        raise PlanError(f"prior_aware: {error}") from error


def audit_steps_of_plan(
    plan: Terms, subject: AuditSubject, context: RunContext, *, confidence: float
) -> StepAudit | None:
    """Watch some steps of one more run, and price the whole recipe by what they show; None if the plan does not ask.

    The run has the network, data, lots, clipping and noise of the target's, and at least as many steps as the plan
    asks for, or all. Its coins derive from the plan, so that nobody can draw again until the answer pleases.

    Args:
        plan: Its `white_box`.
        subject: A target that was trained here.
        context: Where to train.
        confidence: Of the bound, in (0, 1).
    """
    if plan.white_box is None:
        return None
    assert isinstance(subject.target.shadows, ShadowSource)
    job, asked = subject.target.shadows.job, plan.white_box
    claim, lots = step_claim(job), job.recipe.lots
    epochs = min(lots.epochs, -(-asked.steps // lots.steps_per_epoch))
    recipe = replace(job.recipe, lots=replace(lots, epochs=epochs))
    # A scheme that is calibrated would calibrate anew for the shorter run; its noise is that of the whole.
    scheme = job.defense.fixed(lots)
    rule = job.defense.gradient(lots)
    assert rule is not None  # or there would be no claim about its steps
    assert isinstance(subject.target.model, nn.Module)  # it was trained here
    sizes = {name: parameter.numel() for name, parameter in subject.target.model.named_parameters()}
    # Each canary wants one of every group.
    numbers = np.bincount(rule.groups(list(sizes)), weights=list(sizes.values()))
    return audit_steps(
        replace(job, recipe=recipe, defense=scheme),
        seed=derive(0, "white box", plan.subject_digest, job.records.digest, *context.names),
        delta=plan.judged_delta,
        confidence=confidence,
        watch=WhiteBoxOptions(min(asked.canaries, int(numbers.min())), Directions[asked.directions.upper()]),
        claim=claim,
        device=context.device,
        on_progress=context.on_progress,
    )
