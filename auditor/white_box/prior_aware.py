"""The prior-aware attack: which of m records was the one that was added, beside the bound on how often that succeeds.

Whoever knows all other records and sees every step plays the strongest game that the bound of DP-SGD allows for; one
model is trained per trial, so trials are independent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from attacks.reconstruction.rero import rero_bound
from auditor.statistics import membership
from auditor.statistics.intervals import Float64Array
from auditor.white_box.gradient_canaries import Dirac
from auditor.white_box.step_audit import claim_of
from auditor.white_box.step_bounds import CANARIES_ARE_GRADIENTS, StepClaim
from defenses.defense import Job, Sampler
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.training import resolve_device, train
from defenses.progress import OnProgress, silent
from defenses.randomness import derive, stream
from defenses.records import BoolArray, IntArray
from defenses.sampling import poisson_lots, shuffled_lots
from defenses.updates import Tensors
from reports.records.report import Estimate

THRESHOLD_MOVES = (
    "scheme {!r} moves its clipping threshold from step to step, which this attack does not follow; leave it out, or "
    "test the steps by [white_box]"
)


@dataclass(frozen=True)
class PriorAware:
    """How often the added record was named.

    Attributes:
        success: Share of trials, with an interval whose lower end alone carries the error.
        bound: The largest share that the scheme allows.
        candidates: m, records to choose from.
        least_shown: What the lower end would be if every trial had succeeded: the most that could have been shown.
        assumptions: What is taken on trust, one sentence each.
    """

    success: Estimate
    bound: float
    candidates: int
    least_shown: float
    assumptions: tuple[str, ...]


def audit_reconstruction(
    job: Job,
    *,
    candidates: int,
    trials: int,
    seed: int,
    confidence: float = 0.95,
    claim: StepClaim | None = None,
    device: str = "cpu",
    on_progress: OnProgress = silent,
) -> PriorAware:
    """Add one of m records to a training set, many times, and name it from the released steps.

    The attacker takes what the other records add away from every released sum, and sums over the steps the log-ratio of
    the likelihoods with a candidate's weighed gradient in the lot at rate q and without it; the largest sum names the
    record. No other way of naming does better if noise is Gaussian and steps are as claimed.

    Args:
        job: What is trained; of its records m are candidates and the nominal training size less one are always in.
        candidates: m, at least 2; the prior success is 1 / m.
        trials: Models to train, at least 1.
        seed: Names the candidates, the choice and the models.
        confidence: In (0, 1), one-sided.
        claim: What the scheme says of its steps; by default that of DP-SGD.
        device: Where to train.
        on_progress: Called while it trains.

    Returns:
        The success beside `rero_bound` at 1 / m.

    Raises:
        ValueError: If a number is out of range, there are too few records, or the scheme's claim is not known.
        TrainingError: If the scheme has no rule for single examples, or training fails.

    Source: Hayes, Mahloujifar and Balle 2023, "Bounding Training Data Reconstruction in DP-SGD", section 4 (the
    prior-aware attack). Deviation: likelihood ratios, which weigh steps by how likely the record was in the lot, where
    they sum inner products.
    """
    claim = claim or claim_of(job)
    fixed = job.recipe.lots.expected_members - 1
    _check_trials(job, claim, fixed, candidates=candidates, trials=trials)
    order = stream(seed, "candidates").permutation(len(job.records))
    chosen, always = order[:candidates], order[candidates : candidates + fixed]
    secrets = stream(seed, "secrets").integers(0, candidates, trials)
    included = _included(len(job.records), always, chosen[secrets])
    models = [derive(seed, "model", trial) for trial in range(trials)]
    known = dict(zip(models, zip(included, chosen[secrets], strict=True), strict=True))
    adversary = _Adversary(job, chosen, known, claim, device)
    train(job, included, models, device=device, probe=adversary, on_progress=on_progress)
    named = np.array([adversary.scores[model].argmax() for model in models])
    right = int((named == secrets).sum())
    q, sigma, steps = claim.sampling_probability, claim.noise_multiplier, job.recipe.lots.steps
    return PriorAware(
        success=one_sided(right, trials, confidence=confidence),
        bound=rero_bound(1 / candidates, sampling_probability=q, noise_multiplier=sigma, steps=steps),
        candidates=candidates,
        least_shown=one_sided(trials, trials, confidence=confidence).low or 0.0,
        assumptions=(CANARIES_ARE_GRADIENTS,),
    )


def _check_trials(job: Job, claim: StepClaim, fixed: int, *, candidates: int, trials: int) -> None:
    if claim.moves:
        raise ValueError(THRESHOLD_MOVES.format(job.defense.name))
    if candidates < 2 or trials < 1:
        raise ValueError(f"candidates is {candidates}, trials {trials}; give at least 2, and at least 1")
    if len(job.records) < fixed + candidates:
        raise ValueError(
            f"there are {len(job.records)} records; {fixed} that are always in and {candidates} candidates need "
            f"{fixed + candidates}"
        )


def _included(records: int, always: IntArray, added: IntArray) -> BoolArray:
    """Return who is in each model (trials, records): those that always are, and one added record (trials,)."""
    included = np.zeros((len(added), records), dtype=np.bool_)
    included[:, always] = True
    included[np.arange(len(added)), added] = True
    return included


def one_sided(right: int, trials: int, *, confidence: float) -> Estimate:
    """Return a share of trials with a lower Clopper-Pearson limit at this confidence, and an open upper end."""
    found = membership.rate(right, trials, level=1 - 2 * (1 - confidence), unit="trained model")
    return found.model_copy(update={"high": 1.0, "level": confidence, "method": "Clopper-Pearson, lower limit"})


class _Adversary:
    """Reads every step and scores the candidates; adds nothing.

    Args:
        job: What is trained.
        chosen: (m,) rows of the candidates.
        truth: seed -> (who is in (n,), row of the added record), to take the others away as who knows them can.
        claim: What the steps are said to be.
        device: Where it is trained.
    """

    def __init__(
        self, job: Job, chosen: IntArray, truth: Mapping[int, tuple[BoolArray, int]], claim: StepClaim, device: str
    ) -> None:
        self.scores: dict[int, Float64Array] = {}
        self._job, self._chosen, self._truth, self._claim = job, chosen, truth, claim
        self._draw: Callable[..., list[IntArray]] = (
            poisson_lots if job.defense.sampler is Sampler.POISSON else shuffled_lots
        )
        self._lots: dict[tuple[int, int], list[IntArray]] = {}
        rule = job.defense.gradient(job.recipe.lots)
        assert rule is not None
        self._rule = rule
        records = job.records
        self._module = job.recipe.architecture.build(
            records.shape, records.classes, seed=0, dtype=job.recipe.precision.dtype
        ).to(resolve_device(device))

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Return none."""
        nothing = torch.empty(0, dtype=torch.long, device=next(iter(parameters.values())).device)
        return {name: Dirac(0, nothing, nothing, 0.0, value) for name, value in parameters.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return none."""
        return np.zeros(0, dtype=np.bool_)

    def read(self, reading: Reading) -> None:
        """Add the log-likelihood ratio of this step for each candidate."""
        if reading.step == (0, 0):
            self.scores[reading.seed] = np.zeros(len(self._chosen))
        weighed = self._weighed(reading.before)
        rest = torch.cat([(reading.released[name] - reading.sums[name]).flatten() for name in reading.sums])
        row = self._truth[reading.seed][1]
        if row in self._lot(reading.seed, reading.step):  # it is in the sums, which hold what the attacker cannot know
            rest = rest + weighed[int(np.flatnonzero(self._chosen == row)[0])]
        along, square = (weighed @ rest).double(), weighed.square().sum(1).double()
        q, scale = self._claim.sampling_probability, self._claim.noise_multiplier * self._claim.max_grad_norm
        exponent = ((along - square / 2) / scale**2).cpu().numpy()
        with np.errstate(divide="ignore"):
            self.scores[reading.seed] += np.logaddexp(np.log1p(-q), np.log(q) + exponent)

    def _weighed(self, parameters: Tensors) -> Tensor:
        """Return what the rule makes of each candidate's gradient, (m, all parameters)."""
        records, like = self._job.records, next(iter(parameters.values()))
        x = torch.from_numpy(records.x[self._chosen]).to(like)
        y = torch.from_numpy(records.y[self._chosen]).to(like.device)

        def loss(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(functional_call(self._module, parameters, (x[None],)), y[None])

        gradients: Tensors = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        examples = {name: Materialised(value) for name, value in gradients.items()}
        groups = self._rule.groups(list(examples))
        powers = [
            torch.stack(
                [
                    entry.power(self._rule.order)
                    for entry, own in zip(examples.values(), groups, strict=True)
                    if own == group
                ]
            ).sum(0)
            for group in range(max(groups) + 1)
        ]
        norms = torch.stack(powers, dim=1)
        norms = norms.sqrt() if self._rule.order == 2 else norms
        weights, _ = self._rule.factors(norms, y, torch.ones_like(y, dtype=torch.bool), self._rule.initial())
        return torch.cat(
            [
                weights[:, group, None] * value.flatten(1)
                for group, value in zip(groups, gradients.values(), strict=True)
            ],
            dim=1,
        )

    def _lot(self, seed: int, step: Step) -> IntArray:
        epoch, position = step
        if (seed, epoch) not in self._lots:
            self._lots[seed, epoch] = self._draw(self._job.recipe.lots, self._truth[seed][0], seed=seed, epoch=epoch)
        return self._lots[seed, epoch][position]
