"""What participants of a training send, made of the records of an audit and protected as its plan says."""

import copy
import hashlib
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.gradient_leakage.gradient_protections import clipped, noised, sparsified
from attacks.gradient_leakage.shared_gradients import deviation_of_noise, local_updates, shared_under
from attacks.shadows import ShadowSource
from attacks.target import Target
from attacks.transcript import Transcript
from auditor.context import RunContext
from auditor.datasets.placeholder_records import drawn
from auditor.plan.sections import Gradients
from auditor.subject import AttackTarget
from defenses.architectures import untrained
from defenses.errors import PlanError
from defenses.gradients import ClippedGaussian, GradientRule
from defenses.randomness import derive, stream
from defenses.records import BoolArray, IntArray
from defenses.updates import Tensors

GRADIENTS = "gradients that participants send"
OTHERS = 300  # records that were not in, to compare with: enough to resolve 1% false alarms


def drawn_transcript(
    question: AttackTarget, entry: Gradients, rule: GradientRule | None, context: RunContext
) -> AttackTarget:
    """Let participants who hold drawn canaries send the same, for whoever looks at the report; see `transcript`."""
    records, count = question.target.candidates, max(4, entry.batch_size)
    pictures = drawn(records, 4 * count, rng=stream(0, "drawn", records.digest))
    of_nobody = AttackTarget(replace(question.target, candidates=pictures), np.arange(4 * count) < count)
    few = entry.model_copy(update={"victims": count // entry.batch_size})
    return transcript(of_nobody, few, rule, context, seed=0)


def protected(entry: Gradients, rule: GradientRule | None) -> bool:
    """Say whether anything is done to what participants send."""
    return rule is not None or entry.clip is not None or entry.noise > 0 or entry.kept is not None


def transcript(
    question: AttackTarget, entry: Gradients, rule: GradientRule | None, context: RunContext, *, seed: int
) -> AttackTarget:
    """Let participants who hold members of the model send what the plan says, and ask who they are.

    Args:
        question: Candidates with the truth; participants hold members.
        entry: What they send.
        rule: The scheme's rule, or None.
        context: Where to compute.
        seed: Root of the noise.

    Raises:
        PlanError: If there are too few members, or what is asked does not go together.
    """
    chosen, victims, included = _participants(question, entry)
    target, records = question.target, question.target.candidates.take(chosen)
    model = target.model
    if not isinstance(model, nn.Module):
        raise PlanError("[gradients] are those of a network, and the target of this plan is none: leave it out")
    if entry.weights == "start":
        if not isinstance(target.shadows, ShadowSource):
            raise PlanError("gradients: where training started is known only with [training]; set weights = 'end'")
        architecture = target.shadows.job.recipe.architecture
        model = untrained(model, architecture, records.shape, records.classes, seed=derive(0, "start"))
    dtype = torch.float64 if entry.precision == "float64" else torch.float32
    module = copy.deepcopy(model).to(device=context.place, dtype=dtype).eval()
    x = torch.as_tensor(records.x[victims], dtype=dtype, device=context.place)
    y = torch.as_tensor(records.y[victims], device=context.place)
    if entry.local_steps > 1:
        if rule is not None:
            raise PlanError(
                f"gradients: local_steps is {entry.local_steps}, but the scheme protects single gradients; set it to 1"
            )
        sent = local_updates(module, x, y, steps=entry.local_steps, learning_rate=entry.learning_rate)
    else:
        sent = shared_under(module, x, y, rule, seed=derive(seed, "participants"))
    sent = _after(sent, entry, seed)
    said = Transcript(
        gradients=sent,
        batch_size=entry.batch_size,
        local_steps=entry.local_steps,
        learning_rate=entry.learning_rate,
        clipped=rule is not None or entry.clip is not None,
        sparsified=entry.kept is not None,
        noise=math.hypot(_noise(rule, module, x, y, seed=seed), entry.noise),
        protection=_in_words(entry, rule),
    )
    found = Target(
        model=module,
        candidates=records,
        digest=_digest(sent),
        population=target.population,
        access=frozenset({Capability.WEIGHTS}),
        transcript=said,
    )
    return AttackTarget(found, included, GRADIENTS, victims)


def _participants(question: AttackTarget, entry: Gradients) -> tuple[IntArray, IntArray, BoolArray]:
    """Return candidates in an order of their own (m,), whose are sent (V, B), and who is among those (m,).

    Records that were not in are of the classes of those that were, in the same shares: a class mean is no leak.
    """
    records, included = question.target.candidates, question.included
    rng = stream(0, "participants", records.digest, entry.victims, entry.batch_size)
    members, needed = rng.permutation(np.flatnonzero(included)), entry.victims * entry.batch_size
    if len(members) < needed:
        raise PlanError(
            f"gradients: {entry.victims} victims with {entry.batch_size} records each need {needed} members, and there "
            f"are {len(members)}; take fewer"
        )
    members = members[:needed]
    outside = rng.permutation(np.flatnonzero(~included))
    share = max(OTHERS, needed) / needed
    others = []
    for label in np.unique(records.y[members]):
        own = outside[records.y[outside] == label]
        # Where a class is a person, nobody outside is of that class: then anybody will do.
        own = own if len(own) else rng.permutation(outside)
        others.append(own[: round(share * int((records.y[members] == label).sum()))])
    others = [np.unique(np.concatenate(others))]
    chosen = np.concatenate([members, *others])
    order = rng.permutation(len(chosen))
    place = np.empty(len(chosen), dtype=np.int64)
    place[order] = np.arange(len(chosen))
    return chosen[order], place[:needed].reshape(entry.victims, entry.batch_size), order < needed


def _after(sent: Tensors, entry: Gradients, seed: int) -> Tensors:
    """Do to messages what the plan adds to the scheme."""
    if entry.clip is not None:
        sent = clipped(sent, max_norm=entry.clip)
    if entry.noise:
        generator = torch.Generator().manual_seed(derive(seed, "message noise") % 2**63)
        sent = noised(sent, std=entry.noise, generator=generator, laplace=entry.noise_kind == "laplace")
    return sent if entry.kept is None else sparsified(sent, kept=entry.kept)


def _noise(rule: GradientRule | None, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> float:
    """Return the deviation of the scheme's noise on each number of a message: stated where it can be, else measured."""
    if rule is None:
        return 0.0
    if type(rule) is ClippedGaussian:
        return rule.max_grad_norm * rule.noise_multiplier / x.shape[1]
    return deviation_of_noise(model, x, y, rule, seed=seed)


def _in_words(entry: Gradients, rule: GradientRule | None) -> str:
    done = [] if rule is None else ["the scheme's gradient rule"]
    done += [] if entry.clip is None else [f"clipped to {entry.clip:g}"]
    done += [f"{entry.noise_kind} noise of {entry.noise:g}"] if entry.noise else []
    done += [] if entry.kept is None else [f"the largest {entry.kept:.2g} of the numbers"]
    return ", ".join(done) or "none"


def _digest(sent: Tensors) -> str:
    digest = hashlib.sha256(b"transcript")
    for name, value in sorted(sent.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
