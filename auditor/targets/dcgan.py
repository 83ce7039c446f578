"""A generator trained on the members of an audit, under its scheme, whose samples are released."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from attacks.reconstruction.dcgan import DcganTraining
from auditor.context import RunContext
from auditor.plan.plan import Plan
from auditor.plan.sections import Generator
from auditor.subject import AttackTarget
from auditor.targets.synthetic_data import release
from auditor.workspace import GENERATORS
from defenses.accounting import account_run
from defenses.defense import Defense, History
from defenses.engine.code_digest import digest_of_folders, digest_of_training
from defenses.errors import NotApplicableError, PlanError
from defenses.gradients import GradientRule
from defenses.randomness import derive, stream
from defenses.records import FloatArray, Image, IntArray, Records

SAMPLES = "samples of a DCGAN that was trained on the same records"


def generated(
    question: AttackTarget,
    entry: Generator,
    defense: Defense,
    plan: Plan,
    context: RunContext,
    *,
    seed: int | None = None,
) -> tuple[AttackTarget | None, tuple[str, ...]]:
    """Train a DCGAN on the members under a scheme, and ask whose records its samples hold.

    Args:
        question: Candidates with the truth; it is trained on the members.
        entry: How.
        defense: The scheme; its gradient rule protects the discriminator.
        plan: For delta.
        context: Where to train, and what was trained already.
        seed: Root of all randomness; None for the secret one of this very generator, or the plan's.

    Returns:
        The question, or None where the generator collapsed; and remarks on what it does not show.

    Raises:
        PlanError: If records are not images of a size that is known.
    """
    records = question.target.candidates
    if not isinstance(records.kind, Image):
        raise PlanError("[generator] makes images, and the records of this plan are rows of a table: leave it out")
    members = records.take(question.included)
    training = DcganTraining(**entry.model_dump(exclude={"samples"}))
    nominal = round(0.5 * len(records))
    lots = training.lots(nominal)
    rule = defense.gradient(lots)
    content = _content(members, training, defense, entry, context)
    seed = context.root(plan.seed, content) if seed is None else seed
    kept, name = context.workspace.kept(GENERATORS), f"{_key(content, seed)}.generator"
    found = _read(kept.read(name))
    if found is None:
        found = _trained(training, members, rule, nominal, entry, context, seed=seed)
        kept.write(_written(*found), name)
    x, y, collapsed = found
    if collapsed:
        return None, (f"The generator that was trained beside the model collapsed and was not attacked: {collapsed}.",)
    synthetic = Records(x, y, records.classes, records.kind, name="samples of a generator")
    target = release(synthetic, records, population=question.target.population)
    proved = account_run(defense, History(lots), delta=plan.judged_delta)
    twice = "The generator is a second release of the same records: where both are private, their epsilons add up."
    return AttackTarget(replace(target, guarantee=proved), question.included, SAMPLES), (twice,)


def _trained(
    training: DcganTraining,
    members: Records,
    rule: GradientRule | None,
    nominal: int,
    entry: Generator,
    context: RunContext,
    *,
    seed: int,
) -> tuple[FloatArray, IntArray, str]:
    """Train a generator and draw its samples, with labels, and in words how it collapsed, or nothing."""
    try:
        gan = training.run(
            members.x,
            members.y,
            classes=members.classes,
            kind=members.kind,  # type: ignore[arg-type]  # the caller refuses tables
            seed=derive(seed, "generator"),
            rule=rule,
            expected_members=nominal,
            device=context.device,
            on_progress=context.on_progress,
        )
    except (NotApplicableError, ValueError) as error:
        raise PlanError(f"generator: {error}") from error
    rng = stream(seed, "samples")
    y = rng.integers(members.classes, size=entry.samples)
    return gan.sample(entry.samples, rng, y=y), y, gan.collapsed or ""


def _content(members: Records, training: DcganTraining, defense: Defense, entry: Generator, context: RunContext) -> str:
    """Return SHA-256 (hex) of everything that the samples depend on, beside the seed."""
    import attacks

    about = [members.digest, repr(training), repr(defense), entry.samples, context.place, torch.__version__]
    code = [digest_of_training(), digest_of_folders(Path(attacks.__path__[0]))]
    return hashlib.sha256(json.dumps([*about, *code]).encode()).hexdigest()


def _key(content: str, seed: int) -> str:
    return hashlib.sha256(f"{content} {seed}".encode()).hexdigest()[:40]


def _read(content: bytes | None) -> tuple[FloatArray, IntArray, str] | None:
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return file["x"], file["y"], str(file["collapsed"])


def _written(x: FloatArray, y: IntArray, collapsed: str) -> bytes:
    content = io.BytesIO()
    np.savez(content, x=x, y=y, collapsed=np.array(collapsed))
    return content.getvalue()
