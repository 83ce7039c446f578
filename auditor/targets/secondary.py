"""What else an audit attacks, beside the trained model: made of the same records, under the same scheme."""

import hashlib
import json
from dataclasses import replace

import torch

from attacks.shadows import ShadowSource
from auditor.context import RunContext
from auditor.plan.plan import Plan
from auditor.subject import AttackTarget, AuditSubject
from auditor.targets.dcgan import generated
from auditor.targets.gradient_updates import drawn_transcript, protected, transcript
from auditor.targets.synthetic_data import release
from defenses.engine.code_digest import digest_of_training
from defenses.gradients import GradientRule
from defenses.randomness import stream
from defenses.records import Records
from defenses.schemes.none import NoDefense

RELEASED = "synthetic rows that the scheme released"


def with_beside(subject: AuditSubject, plan: Plan, context: RunContext) -> AuditSubject:
    """Return the subject with everything else that the plan wants attacked, each with its unprotected control.

    Args:
        subject: The trained model with its truth.
        plan: What is asked.
        context: Where it runs.

    Raises:
        PlanError: If the records do not suffice.
    """
    return _with_release(_with_generator(_with_gradients(subject, plan, context), plan, context), plan, context)


def _with_gradients(subject: AuditSubject, plan: Plan, context: RunContext) -> AuditSubject:
    if plan.gradients is None:
        return subject
    rule = _rule(subject)
    content = _content(subject, plan.gradients, rule, context.place)
    asked = transcript(subject.questions[0], plan.gradients, rule, context, seed=context.root(plan.seed, content))
    shown = drawn_transcript(subject.questions[0], plan.gradients, rule, context)
    control: tuple[AttackTarget, ...] = ()
    if plan.control.enabled and protected(plan.gradients, rule):
        plain = plan.gradients.model_copy(update={"clip": None, "noise": 0.0, "kept": None})
        base = subject.control[0] if subject.control else subject.questions[0]
        control = (transcript(base, plain, None, context, seed=0),)
    return replace(
        subject,
        beside=(*subject.beside, asked),
        shown=(*subject.shown, shown),
        control=(*subject.control, *control),
    )


def _with_generator(subject: AuditSubject, plan: Plan, context: RunContext) -> AuditSubject:
    if plan.generator is None:
        return subject
    question, missing = generated(subject.questions[0], plan.generator, subject.defense, plan, context)
    control: list[AttackTarget] = []
    if subject.control and not isinstance(subject.defense, NoDefense):
        leaky, _ = generated(subject.control[0], plan.generator, NoDefense(), plan, context, seed=0)
        control = [] if leaky is None else [leaky]
    return replace(
        subject,
        beside=(*subject.beside, *([] if question is None else [question])),
        control=(*subject.control, *control),
        missing=(*subject.missing, *missing),
    )


def _with_release(subject: AuditSubject, plan: Plan, context: RunContext) -> AuditSubject:
    """Let what a scheme releases beside its model be attacked, and the same without noise as its control."""
    question = subject.questions[0]
    candidates, defense = question.target.candidates, subject.defense
    if subject.root is None:
        return subject  # what was trained elsewhere released its rows there
    rows = defense.released(subject.facts, candidates, stream(subject.root, "released"))
    if rows is None:
        return subject
    control: list[AttackTarget] = []
    plain = defense.unprotected()
    if plan.control.enabled and plain is not None:
        other = subject.control[0] if subject.control else question
        own = stream(0, "released without noise", candidates.digest)
        facts = plain.prepare(candidates.take(other.included), own).facts
        bare = plain.released(facts, candidates, own)
        control = [] if bare is None else [_release(other, bare)]
    return replace(subject, beside=(*subject.beside, _release(question, rows)), control=(*subject.control, *control))


def _content(subject: AuditSubject, *made_of: object) -> str:
    """Return SHA-256 (hex) of what something made beside the model depends on, beside its own randomness."""
    target = subject.target
    about = [target.digest, target.candidates.digest, digest_of_training(), torch.__version__, *map(repr, made_of)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _release(question: AttackTarget, rows: Records) -> AttackTarget:
    target = release(rows, question.target.candidates, population=question.target.population)
    return AttackTarget(target, question.included, about=RELEASED)


def _rule(subject: AuditSubject) -> GradientRule | None:
    shadows = subject.target.shadows
    return subject.defense.gradient(shadows.job.recipe.lots) if isinstance(shadows, ShadowSource) else None
