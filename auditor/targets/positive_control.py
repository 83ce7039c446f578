"""The positive control: the same job without protection, which shows that the attacks can see a leak at all."""

from dataclasses import replace

from attacks.shadows import ShadowSource
from attacks.target import Target
from auditor.context import RunContext
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_recipe
from auditor.subject import AttackTarget, module_digest
from defenses.engine.training import Job
from defenses.errors import TrainingError
from defenses.randomness import derive, stream
from defenses.schemes.none import NoDefense


def positive_control(plan: Plan, target: Target, context: RunContext) -> tuple[tuple[AttackTarget, ...], str]:
    """Train the control of a target whose recipe is known.

    Args:
        plan: What is audited; its [control] overrides the recipe.
        target: The target; its shadow source knows the job.
        context: Where and with what.

    Returns:
        The control with its truth and no reason, or nothing and the reason why there is none.
    """
    if not plan.control.enabled:
        return (), "the plan switched the positive control off"
    if not isinstance(target.shadows, ShadowSource) or plan.training is None:
        return (), "the checkpoint's recipe is not known, so no model could be trained like it"
    job = target.shadows.job
    if isinstance(job.defense, NoDefense) and plan.claim is None:
        return (), "the target itself is unprotected, so its own figures show what the attack can find"
    members = job.recipe.lots.expected_members
    recipe = resolve_recipe(plan.training, job.recipe.architecture, members, control=plan.control)
    unprotected = Job(recipe, NoDefense(), job.records)
    source: ShadowSource = replace(
        target.shadows, job=unprotected, stage="training shadow models of the control", _kept={}
    )
    root = derive(0, "control", job.records.digest, repr(recipe))
    included = job.records.coins(stream(root, "coins"), source.probability)
    try:
        ensemble = source.store.train(
            unprotected,
            included[None],
            [derive(root, "target")],
            device=context.device,
            stage="training the positive control (no protection)",
            on_progress=context.on_progress,
        )
    except TrainingError as error:
        return (), f"the control could not be trained ({error})"
    model = ensemble.one(0)
    leaky = replace(target, model=model, digest=module_digest(model), guarantee=None, shadows=source)
    return (AttackTarget(leaky, included),), ""
