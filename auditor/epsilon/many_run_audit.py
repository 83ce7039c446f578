"""Black-box audit by many tiny runs: worst-case data, weights and record; half of the runs with the record.

Nothing in the proof of DP-SGD depends on the weights that training starts from, nor on the other records, so an audit
may choose both. From weights that already fit the other records, only the canary pulls; a small learning rate keeps its
gradient where it was, so that its loss after training is, to first order, the sum of all noisy steps along it. Without
subsampling that sum tells as much as all the steps together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from attacks.membership.signals import log_probability
from auditor.epsilon.balanced_bound import gaussian_guesses
from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.error_counts import bound_from_runs
from auditor.epsilon.one_run_bound import CLOPPER_PEARSON
from auditor.statistics.intervals import Float64Array
from defenses.defense import Job
from defenses.engine.training import train
from defenses.ensemble import Ensemble
from defenses.progress import OnProgress, silent
from defenses.randomness import derive
from defenses.recipe import Recipe
from defenses.records import BoolArray, Inclusion, Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD

Train = Callable[..., Ensemble]


@dataclass(frozen=True)
class ManyRunAudit:
    """What many runs show.

    Attributes:
        gaussian: Bound from wrong guesses, the trade-off taken for Gaussian.
        clopper_pearson: Bound without that assumption.
        scores: (runs,) minus the canary's loss under the final model; higher means included.
        included: (runs,) bool, whether the canary was in.
        threshold: Score from which on a run was called "in", fixed by two runs without noise.
    """

    gaussian: EpsilonBound
    clopper_pearson: EpsilonBound
    scores: Float64Array
    included: BoolArray
    threshold: float


def crafted_job(
    pretrained: Ensemble, candidates: Records, recipe: Recipe, defense: DPSGD, *, members: int
) -> tuple[Job, int]:
    """Craft the worst case: the records that the given weights fit best, and a blank one that they do not expect.

    The canary is a record of zeros with the label that the pretrained model holds least likely for it: its gradient is
    as long as a blank record's can be, and those of the others are short.

    Args:
        pretrained: One model, trained on other records of the same kind.
        candidates: The records to choose from, at least `members` - 1.
        recipe: Everything but its lots, which become all records in every lot (no subsampling), for as many epochs.
        defense: The scheme.
        members: Nominal size n, the canary included, at least 2.

    Returns:
        The job, whose last record is the canary, and that record's index.

    Raises:
        ValueError: If there are too few candidates.

    Source: Annamalai and De Cristofaro 2024, "Nearly Tight Black-Box Auditing of Differentially Private Machine
    Learning"; choosing the records and the label by the pretrained model's losses is ours.
    """
    if not 2 <= members <= len(candidates) + 1:
        raise ValueError(
            f"members is {members}; it must be in 2..{len(candidates) + 1}, candidates and canary together"
        )
    blank = np.zeros((1, *candidates.shape), dtype=np.float32)
    label = int(pretrained.logits(blank)[0, 0].argmin())
    losses = -log_probability(pretrained.logits(candidates.x)[0], candidates.y)
    kept = np.sort(np.argsort(losses, kind="stable")[: members - 1])
    records = replace(
        candidates,
        x=np.concatenate([candidates.x[kept], blank]),
        y=np.append(candidates.y[kept], label),
        owner=None,
        cluster=None,
    )
    whole = replace(recipe, lots=Lots(members, members, recipe.lots.epochs))
    return Job(whole, defense, records, initial=pretrained), members - 1


def audit_many_runs(
    job: Job,
    canary: int,
    *,
    runs: int,
    seed: int,
    delta: float,
    confidence: float = 0.95,
    width: int = 32,
    device: str = "cpu",
    train_models: Train = train,
    on_progress: OnProgress = silent,
) -> ManyRunAudit:
    """Bound epsilon by the loss of one record over many independent runs, half of them with it.

    The threshold lies midway between the record's scores after two runs without noise, one with and one without it: it
    is fixed before any run of the audit, and so costs none.

    Args:
        job: What is trained; its scheme is DP-SGD.
        canary: Index of the record that is in or out; all others are always in.
        runs: Runs with and as many without the record, at least 1.
        seed: Names the runs.
        delta: In (0, 1).
        confidence: In (0, 1), for each of both bounds by itself.
        width: Models per stack.
        device: Where to train.
        train_models: `defenses.engine.training.train`, or `ModelStore.train` to keep the runs and to use all cores.
        on_progress: Told after every epoch of a stack.

    Returns:
        Both bounds, with scores and threshold.

    Raises:
        ValueError: If a value is out of range, or the scheme is not DP-SGD.
        TrainingError: If a run diverges.

    Examples:
        >>> audit_many_runs(job, canary, runs=2000, seed=1, delta=1e-5).gaussian.lower         # doctest: +SKIP
        8.9

    Source: Annamalai and De Cristofaro 2024, algorithm 2; Nasr et al. 2023 for the Gaussian shape. They choose the
    threshold on other runs.
    """
    scheme = job.defense
    if not isinstance(scheme, DPSGD):
        raise ValueError(f"the scheme is {scheme.name!r}; the threshold of this audit is made for DP-SGD")
    if runs < 1:
        raise ValueError(f"runs is {runs}; at least 1 on each side is needed")

    def scores(defense: DPSGD, included: BoolArray, stage: str) -> Float64Array:
        members = np.ones((len(included), len(job.records)), dtype=np.bool_)
        members[:, canary] = included
        seeds = [derive(seed, stage, k) for k in range(len(included))]
        models = train_models(
            replace(job, defense=defense), members, seeds, device=device, width=width, on_progress=on_progress
        )
        x, y = job.records.x[canary : canary + 1], job.records.y[canary]
        return log_probability(models.logits(x)[:, 0], np.full(len(included), y))

    silent_scheme = replace(scheme, epsilon=None, noise_multiplier=0.0)
    threshold = float(scores(silent_scheme, np.array([False, True]), "without noise").mean())
    included = np.arange(2 * runs) % 2 == 1
    found = scores(scheme, included, "runs")
    wrong = int(((found >= threshold) != included).sum())
    return ManyRunAudit(
        gaussian=gaussian_guesses(wrong, 2 * runs, delta=delta, confidence=confidence),
        clopper_pearson=bound_from_runs(
            found,
            included,
            method=CLOPPER_PEARSON,
            inclusion=Inclusion.PAIRED_RUNS,
            delta=delta,
            confidence=confidence,
            threshold=threshold,
        ),
        scores=found,
        included=included,
        threshold=threshold,
    )
