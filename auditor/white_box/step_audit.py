"""White-box audit of training by gradient canaries: one run or two, sums or iterates, single steps or the whole run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from auditor.epsilon.bound import BoundKind
from auditor.epsilon.one_run_bound import OneRunAudit, one_run_from_scores
from auditor.white_box.gradient_canaries import (
    Access,
    Directions,
    GradientCanaries,
    Observations,
    Toggle,
    log_likelihood_ratios,
)
from auditor.white_box.step_bounds import CANARIES_ARE_GRADIENTS, StepAudit, StepClaim, audit_observations
from defenses.defense import Job
from defenses.engine.training import train
from defenses.progress import OnProgress, silent
from defenses.randomness import derive
from defenses.records import Inclusion


@dataclass(frozen=True)
class WhiteBoxOptions:
    """How a run is watched.

    Attributes:
        canaries: How many gradient canaries, at least 1.
        directions: Which directions they have.
        access: What the adversary observes of a step.
    """

    canaries: int = 512
    directions: Directions = Directions.DIRAC
    access: Access = Access.RELEASED


def claim_of(job: Job) -> StepClaim:
    """Return what the scheme says of the steps of a job.

    Raises:
        ValueError: If it promises nothing of them that is known here.
    """
    scheme, lots = job.defense, job.recipe.lots
    promise = scheme.steps(lots)
    if promise is None:
        raise ValueError(f"scheme {scheme.name!r} makes no claim about the noise of its steps that is known here")
    return StepClaim(
        math.hypot(*promise.thresholds),
        promise.noise_multiplier,
        lots.sampling_probability,
        promise.priced,
        promise.thresholds,
        promise.moves,
    )


def audit_steps(
    job: Job,
    *,
    seed: int,
    delta: float,
    confidence: float = 0.95,
    watch: WhiteBoxOptions | None = None,
    two_runs: bool = False,
    claim: StepClaim | None = None,
    device: str = "cpu",
    on_progress: OnProgress = silent,
) -> StepAudit:
    """Audit clipping and noise by canaries that are in or out of every single step.

    In one run each canary joins each lot by a fair coin; with two runs, all join every lot of one and none of the
    other. Every canary and step is a trial, at the threshold 1/2, which is fixed by the clipping norm.

    Args:
        job: What is trained; all its records are in.
        seed: Names coins, directions and noise.
        delta: In (0, 1).
        confidence: In (0, 1).
        watch: How; 512 Dirac canaries and the released sums by default.
        two_runs: Whether to make the trials in two runs.
        claim: What the scheme says of its steps; by default that of DP-SGD.
        device: Where to train.
        on_progress: Told after every epoch.

    Returns:
        Bounds of kind IMPLIED.

    Raises:
        ValueError: If a value is out of range or the scheme's claim is not known.
        TrainingError: If the scheme has no rule for single examples, or training fails.

    Examples:
        >>> audit_steps(job, seed=1, delta=1e-5).gaussian.lower         # doctest: +SKIP
        7.8

    Source: Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning": gradient canaries, one trial
    per step, two runs. One run with fair coins, and many canaries at once, are ours.
    """
    claim = claim or claim_of(job)
    seen = observe_steps(
        job, seed=seed, watch=watch, two_runs=two_runs, claim=claim, device=device, on_progress=on_progress
    )
    return audit_observations(seen.values, seen.present, claim, balanced=True, delta=delta, confidence=confidence)


def observe_steps(
    job: Job,
    *,
    seed: int,
    watch: WhiteBoxOptions | None = None,
    two_runs: bool = False,
    claim: StepClaim | None = None,
    device: str = "cpu",
    on_progress: OnProgress = silent,
) -> Observations:
    """Train with canaries that are in or out of every single step, and return what is seen of them.

    Arguments and errors as in `audit_steps`; two runs come one after the other, the one without canaries first.
    """
    claim = claim or claim_of(job)
    models = [derive(seed, "model", k) for k in range(2 if two_runs else 1)]
    canaries = _canaries(
        job,
        claim,
        watch or WhiteBoxOptions(),
        toggle=Toggle.BY_RUN if two_runs else Toggle.EVERY_STEP,
        seed=seed,
        runs_with=frozenset(models[1:]),
    )
    seen = _observed(job, canaries, models, device=device, on_progress=on_progress)
    values, present = (np.concatenate([getattr(run, name) for run in seen]) for name in ("values", "present"))
    return Observations(values, present, np.logical_or.reduce([run.included for run in seen]))


def observe_one_run(
    job: Job,
    *,
    seed: int,
    watch: WhiteBoxOptions | None = None,
    claim: StepClaim | None = None,
    device: str = "cpu",
    on_progress: OnProgress = silent,
) -> Observations:
    """Train once with canaries that are in or out of the whole run, each by a fair coin, and sampled as records are.

    Args:
        job: What is trained; all its records are in.
        seed: Names coins, directions, lots and noise.
        watch: How; 512 Dirac canaries and the released sums by default.
        claim: What the scheme says of its steps; by default that of DP-SGD.
        device: Where to train.
        on_progress: Told after every epoch.

    Returns:
        What was seen of each canary, T steps in order.

    Raises:
        ValueError: If a value is out of range or the scheme's claim is not known.
        TrainingError: If the scheme has no rule for single examples, or training fails.
    """
    claim = claim or claim_of(job)
    canaries = _canaries(job, claim, watch or WhiteBoxOptions(), toggle=Toggle.SAMPLED, seed=seed)
    return _observed(job, canaries, [derive(seed, "model", 0)], device=device, on_progress=on_progress)[0]


def audit_one_run(
    job: Job,
    *,
    seed: int,
    delta: float,
    confidence: float = 0.95,
    watch: WhiteBoxOptions | None = None,
    claim: StepClaim | None = None,
    device: str = "cpu",
    on_progress: OnProgress = silent,
) -> OneRunAudit:
    """Audit a whole run by the likelihood of what was seen of each canary.

    Unlike `audit_steps` this sees how the steps of a run add up, and is far weaker. Canaries are drawn into lots beside
    the engine's own sampler, at the claimed rate, so the bound takes that on trust and is IMPLIED.

    Args:
        job: What is trained; all its records are in.
        seed: Names coins, directions, lots and noise.
        delta: In [0, 1).
        confidence: In (0, 1).
        watch: How; 512 Dirac canaries and the released sums by default.
        claim: What the scheme says of its steps; by default that of DP-SGD.
        device: Where to train.
        on_progress: Told after every epoch.

    Returns:
        The best bound over the usual numbers of guesses.

    Raises:
        ValueError: If a value is out of range or the scheme's claim is not known.
        TrainingError: If the scheme has no rule for single examples, or training fails.

    Examples:
        >>> audit_one_run(job, seed=1, delta=1e-5).bound.lower         # doctest: +SKIP
        1.4

    Source: Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (its white-box audit), with
    likelihood ratios in place of summed inner products.
    """
    claim = claim or claim_of(job)
    seen = observe_one_run(job, seed=seed, watch=watch, claim=claim, device=device, on_progress=on_progress)
    scores = log_likelihood_ratios(
        seen.values, sampling_probability=claim.sampling_probability, noise_multiplier=claim.noise_multiplier
    )
    found = one_run_from_scores(
        scores, seen.included, inclusion=Inclusion.INDEPENDENT, delta=delta, confidence=confidence
    )
    trusted = "Records are drawn into lots as canaries are: independently, with the claimed probability."
    return replace(
        found,
        bound=replace(
            found.bound, kind=BoundKind.IMPLIED, assumptions=(*found.bound.assumptions, trusted, CANARIES_ARE_GRADIENTS)
        ),
    )


def _canaries(
    job: Job,
    claim: StepClaim,
    watch: WhiteBoxOptions,
    *,
    toggle: Toggle,
    seed: int,
    runs_with: frozenset[int] = frozenset(),
) -> GradientCanaries:
    rule = job.defense.gradient(job.recipe.lots)
    if rule is None:
        raise ValueError(f"scheme {job.defense.name!r} has no rule for per-example gradients; audit it by its outputs")
    return GradientCanaries(
        watch.canaries,
        max_grad_norm=claim.max_grad_norm,
        seed=seed,
        toggle=toggle,
        directions=watch.directions,
        access=watch.access,
        sampling_probability=claim.sampling_probability,
        runs_with=runs_with,
        optimizer=job.defense.update(job.recipe),
        normaliser=job.recipe.lots.batch_size,
        groups=rule.groups,
        thresholds=claim.thresholds,
    )


def _observed(
    job: Job, canaries: GradientCanaries, models: Sequence[int], *, device: str, on_progress: OnProgress
) -> list[Observations]:
    everyone = np.ones((len(models), len(job.records)), dtype=np.bool_)
    train(job, everyone, models, device=device, width=len(models), probe=canaries, on_progress=on_progress)
    return [canaries.observations(model) for model in models]
