"""Equation solving: a linear target given away exactly by one answer per unknown, as its log-ratios are linear."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch import nn

from attacks.capabilities import Capability
from attacks.protocol import Attack, ExtractedModel, Stolen
from attacks.record_spec import RecordSpec
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.architectures import Architecture
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, Progress, silent
from defenses.records import FloatArray

Float64Array = npt.NDArray[np.float64]

_LEAST = 1e-280  # below it a float64 loses digits, and with them the logarithm
_FLOOR = math.log(_LEAST)
_ROUNDING = 1e-6  # of the largest log-ratio: what float32 arithmetic of the target leaves uncertain
_SHRINKS, _REFINEMENTS, _BLOCK = 8, 2, 1 << 22


@dataclass(frozen=True)
class EquationSolving(Attack):
    """Solve for the weights of a (multinomial) logistic target from d + 1 answers, d the number of features.

    log p_c - log p_k of such a target is an affine function of the record, so d + 1 records in general position give it
    for every pair of classes. Whether the target is of this kind is found out first, on lines: halfway between two
    records the log-ratios must be the mean of those at the ends. The solution must then predict these answers too.

    The records asked about are rows of a discrete Hartley transform, scaled to the public range: an orthogonal design
    that exists for every d, so rounding of the answers grows by less than the root of 2 anywhere within the range. They
    are no plausible records: a target that refuses fractions in a one-hot block would have to be asked otherwise.

    Attributes:
        lines: Lines on which the target is checked before and the solution after, three queries each; at least 1.
        tolerance: Largest error of a check, as a share of how far the target's log-ratios spread, in (0, 1).

    Source: Tramer, Zhang, Juels, Reiter and Ristenpart 2016, "Stealing Machine Learning Models via Prediction APIs",
    section 4.1. Deviations: an orthogonal design in place of random records; the solution is refined to the accuracy of
    float64; and the check.
    """

    lines: int = 8
    tolerance: float = 1e-4

    name = "equation_solving"
    title = "Equation solving"
    paper = "Tramer et al. 2016, Stealing Machine Learning Models via Prediction APIs"
    requires = ThreatModel(frozenset({Capability.PROBABILITIES}), candidates=False)
    claims = ExtractedModel

    def __post_init__(self) -> None:
        if self.lines < 1 or not 0 < self.tolerance < 1:
            raise ValueError(
                f"lines is {self.lines}, tolerance {self.tolerance}; give at least 1, and strictly between 0 and 1"
            )

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> ExtractedModel:
        """Return the one copy, equal to the target up to rounding, and say what the check found.

        Raises:
            NotApplicableError: If the target is not linear, or its answers cannot be taken logarithms of.
        """
        low, high = view.facts.value_range
        before, reach = view.queries, (high - low) / 2
        for _ in range(_SHRINKS):
            asked = _lines(self.lines, view.facts, reach, rng)
            said = _log_probabilities(view, asked)
            if said.min() > _FLOOR:
                ends, halfway = _centred(said[: 2 * self.lines]), said[2 * self.lines :]
                self._check(_error(ends.reshape(2, *halfway.shape).mean(axis=0), halfway), said, "the mean of the ends")
                design = _Design(view.facts, reach)
                answers = design.ask(view, on_progress)
                if answers.min() > _FLOOR:
                    break
            reach /= 4  # a class too unlikely for its probability to have a logarithm: stay nearer to the middle
        else:
            raise NotApplicableError(
                f"the target gives some class a probability of 0 even within {reach:g} of the middle of the range, so "
                "there are no log-ratios to solve; distillation needs none"
            )
        weights, bias = design.solve(_centred(answers))
        flat = asked.reshape(len(asked), -1).astype(np.float64)
        error = _error(flat @ weights.T + bias, said)
        self._check(error, np.concatenate([said, answers]), "the solution")
        note = (
            f"The solution of {design.size:,} equations predicts {len(asked)} other answers to within {error:.1e} nats "
            "of log-probability."
        )
        return ExtractedModel((Stolen(view.queries - before, _module(view.facts, weights, bias)),), None, (note,))

    def _check(self, error: float, said: Float64Array, what: str) -> None:
        """Raise NotApplicableError where an affine function misses the target's answers by more than rounding."""
        ratios = _centred(said)
        allowed = self.tolerance * float(np.ptp(ratios, axis=0).max()) + _ROUNDING * float(np.abs(ratios).max())
        if not error <= allowed:
            raise NotApplicableError(
                f"the target is not linear: its log-probabilities miss {what} by up to {error:.2g} nats, where "
                f"rounding explains {allowed:.2g}; distillation copies targets of any kind"
            )


class _Design:
    """The d + 1 records that are asked about: row i of the discrete Hartley transform, its constant column left out."""

    def __init__(self, facts: RecordSpec, reach: float) -> None:
        self.facts, self.centre, self.reach = facts, sum(facts.value_range) / 2, reach
        self.size = math.prod(facts.shape) + 1

    def blocks(self) -> Iterator[FloatArray]:
        """Yield the records (b, d) in order, a block at a time: all at once would be d^2 numbers."""
        columns = np.arange(1, self.size)
        for rows in np.array_split(np.arange(self.size), -(-self.size * self.size // _BLOCK)):
            angles = 2 * np.pi / self.size * (rows[:, None] * columns % self.size)
            # cos + sin reaches the root of 2; the transform times itself is `size` times the identity.
            waves = (np.cos(angles) + np.sin(angles)) / math.sqrt(2)
            yield _around_middle(self.reach * waves, self.facts)

    def ask(self, view: View, on_progress: OnProgress) -> Float64Array:
        """Return the target's log-probabilities (d + 1, C)."""
        said: list[Float64Array] = []
        for block in self.blocks():
            on_progress(Progress("asking the target", sum(map(len, said)), self.size))
            said.append(_log_probabilities(view, block.reshape(-1, *self.facts.shape)))
        return np.concatenate(said)

    def solve(self, values: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return the weights (C, d) and biases (C,) of the affine function with these values (d + 1, C)."""
        found = self._invert(values)
        for _ in range(_REFINEMENTS):  # the records are float32, and so not quite the transform
            fitted = [found[0] + (block.astype(np.float64) - self.centre) @ found[1:] for block in self.blocks()]
            found += self._invert(values - np.concatenate(fitted))
        return found[1:].T, found[0] - self.centre * found[1:].sum(axis=0)

    def _invert(self, values: Float64Array) -> Float64Array:
        transformed = np.fft.fft(values, axis=0)
        found = np.asarray(transformed.real - transformed.imag) / self.size
        found[1:] *= math.sqrt(2) / self.reach
        return found


def _lines(count: int, facts: RecordSpec, reach: float, rng: np.random.Generator) -> FloatArray:
    """Return the ends of so many lines, then what lies halfway: (3 * count, *shape), within `reach` of the middle.

    Ends are corners with any share of features high, and its complement at the other end: lines are long, and cross
    the middle, so that a network seldom is linear on them.
    """
    share = rng.random((count, 1))
    ends = rng.random((2 * count, math.prod(facts.shape))) < np.concatenate([share, 1 - share])
    signs = 2.0 * ends - 1
    offsets = reach * np.concatenate([signs, (signs[:count] + signs[count:]) / 2])
    return _around_middle(offsets, facts).reshape(-1, *facts.shape)


def _around_middle(offsets: Float64Array, facts: RecordSpec) -> FloatArray:
    """Return records that lie at these offsets from the middle of the public range, and never outside it."""
    low, high = facts.value_range
    return np.clip(((low + high) / 2 + offsets).astype(np.float32), np.float32(low), np.float32(high))


def _log_probabilities(view: View, x: FloatArray) -> Float64Array:
    return np.asarray(np.log(np.maximum(view.probabilities(x), _LEAST)))


def _centred(values: Float64Array) -> Float64Array:
    """Return log-probabilities (n, C) as logits whose mean over classes is 0: the shift that no answer shows."""
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _error(logits: Float64Array, said: Float64Array) -> float:
    """Return the largest difference between what logits (n, C) mean and log-probabilities."""
    return float(np.abs(log_softmax(logits, axis=1) - said).max())


def _module(facts: RecordSpec, weights: Float64Array, bias: Float64Array) -> nn.Module:
    module = Architecture("mlp", {"hidden": []}).build(facts.shape, facts.classes, seed=0, dtype=torch.float64)
    linear = module[-1]  # type: ignore[index]
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights))
        linear.bias.copy_(torch.from_numpy(bias))
    return module.eval()
