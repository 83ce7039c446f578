"""Many runs on two crafted data sets that differ in one record, shared by every check that scores them."""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from auditor.debug_dp.bench import Harness, ModelDelta
from auditor.debug_dp.check import Answer
from auditor.debug_dp.crafted import HUGE, SMALL, bare, joined, natural
from auditor.debug_dp.implementation import StepSettings
from auditor.debug_dp.p_values import least_error
from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.one_run_bound import clopper_pearson
from auditor.statistics.intervals import Float64Array, two_rate_limit
from defenses.progress import Progress

INPUTS = 64
LEARNING_RATE = 0.1
_FEWEST = 8


@dataclass(frozen=True)
class Runs:
    """Updates of many runs with and without a canary.

    Attributes:
        model: Where all of them began.
        canary: (inputs,) the record.
        label: Its label, the one that the model holds less likely: where it is sure and right, no gradient is left.
        direction: Where it moves the update without noise, of length 1; zeros if it moves nothing.
        ins: Updates of the runs with it.
        outs: Updates of the runs without it.
    """

    model: nn.Module
    canary: Tensor
    label: int
    direction: Tensor
    ins: list[ModelDelta]
    outs: list[ModelDelta]


# The runs of each bench, for as long as it lives: three checks score the same ones.
_KNOWN: "weakref.WeakKeyDictionary[Harness, Runs]" = weakref.WeakKeyDictionary()


def many_runs(bench: Harness) -> Runs:
    """Return the runs of a bench, made when they are first asked for, as many as its budget allows.

    The data are as bad as they come: all records but the canary have next to no gradient, the canary is orthogonal to
    them and clipped. Runs with and without it take turns, so that what drifts over time falls on both.
    """
    if bench in _KNOWN:
        return _KNOWN[bench]
    claim = bench.claim
    dials = StepSettings(
        max_grad_norm=claim.max_grad_norm,
        noise_multiplier=claim.noise_multiplier,
        expected_batch_size=claim.expected_batch_size,
        sampling_probability=claim.sampling_probability,
        steps=claim.steps,
        learning_rate=LEARNING_RATE,
    )
    x, y = natural(claim.records, INPUTS, rng=bench.rng, scale=SMALL)
    canary = torch.zeros(INPUTS)
    canary[int(bench.rng.integers(INPUTS))] = HUGE
    model = bare(INPUTS, rng=bench.rng)
    with torch.no_grad():
        label = int(model(canary).argmin())
    more = joined(x, y, canary, label)
    whole = replace(dials.quiet(), sampling_probability=1.0, steps=1)
    moved = bench.moved(model, *more, whole).flat - bench.moved(model, x, y, whole).flat
    runs = Runs(model, canary, label, moved / moved.norm() if moved.any() else moved, [], [])
    until = time.monotonic() + 0.95 * bench.seconds_left
    longest = 0.0
    while len(runs.outs) < bench.runs and time.monotonic() + longest < until:
        began = time.monotonic()
        runs.ins.append(bench.moved(model, *more, dials))
        runs.outs.append(bench.moved(model, x, y, dials))
        longest = max(longest, time.monotonic() - began)
        done = len(runs.outs)
        bench.on_progress(Progress("repeated runs", done, bench.runs, f"{done} with and {done} without the canary"))
    _KNOWN[bench] = runs
    return runs


def judged(bench: Harness, score: Callable[[Runs, ModelDelta], float], what: str) -> Answer:
    """Score each run, choose a threshold and its side on one half of them, and bound epsilon from the other half.

    Args:
        bench: With the claim that is tested.
        score: (runs, update) -> a number; whether higher means "in" is chosen with the threshold.
        what: What is scored, for the sentence.
    """
    runs, claim = many_runs(bench), bench.claim
    if len(runs.outs) < _FEWEST:
        return Answer(
            None, f"the budget allows {len(runs.outs)} runs with and without the canary, {_FEWEST} are needed"
        )
    ins = np.array([score(runs, update) for update in runs.ins])
    outs = np.array([score(runs, update) for update in runs.outs])
    half = len(ins) // 2
    sign, threshold = _chosen(ins[:half], outs[:half], claim.delta, bench.error)
    ins, outs = sign * ins[half:], sign * outs[half:]
    false_positives, false_negatives = int((outs >= threshold).sum()), int((ins < threshold).sum())

    def limit(error: float, wrong_in: int = false_positives, wrong_out: int = false_negatives) -> float:
        return float(
            two_rate_limit(
                np.array([wrong_in]), len(outs), np.array([wrong_out]), len(ins), delta=claim.delta, error=error
            )[0]
        )

    bound: EpsilonBound = clopper_pearson(
        false_positives, len(outs), false_negatives, len(ins), delta=claim.delta, confidence=bench.confidence
    )
    found = (
        f"{what} tells {len(ins)} runs with the canary from {len(outs)} without it with {false_negatives} and "
        f"{false_positives} errors: paying for all checks, epsilon is at least {bound.lower:.3g} (claimed "
        f"{claim.epsilon:.3g}; so many runs could show at most {bound.ceiling:.3g})"
    )
    if bound.ceiling <= claim.epsilon:
        return Answer(None, found, bound)
    return Answer(least_error(lambda error: limit(error) > claim.epsilon), found, bound)


def _chosen(ins: Float64Array, outs: Float64Array, delta: float, error: float) -> tuple[float, float]:
    """Return the sign and the threshold that give the largest bound on these runs; the widest gap if all bounds are 0.

    Not the widest gap at once: a canary in every other lot is best told by a threshold that no run without it passes.
    """
    found = []
    for sign in (1.0, -1.0):
        values = np.unique(np.concatenate([sign * ins, sign * outs]))
        candidates = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
        false_positives = len(outs) - np.searchsorted(np.sort(sign * outs), candidates)
        false_negatives = np.searchsorted(np.sort(sign * ins), candidates)
        lower = two_rate_limit(false_positives, len(outs), false_negatives, len(ins), delta=delta, error=error)
        gap = -(false_positives / len(outs) + false_negatives / len(ins))
        best = int(np.lexsort((gap, lower))[-1])
        found.append((float(lower[best]), float(gap[best]), sign, float(candidates[best])))
    return max(found)[2:]
