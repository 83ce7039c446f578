"""Canaries that are gradients: directions of their own in the space of all parameters, observed at every step.

A record of the lot whose gradient is a direction of its own moves the released sum along it by exactly the clipping
norm C, while the noise has standard deviation C times the noise multiplier s along any direction. The adversary of
differential privacy knows all other records, so what is left of the released sum, along the canary and over C, is one
draw from N(0, s^2) without the canary and from N(1, s^2) with it: the strongest evidence that a step can give.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auditor.statistics.intervals import Float64Array
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.randomness import stream
from defenses.records import BoolArray
from defenses.updates import SGD, Tensors

MAGNITUDE = 10.0  # norm of a canary's gradient over the clipping norm: what does not clip it shows ten times over


class Directions(enum.Enum):
    """Which directions the canaries have."""

    DIRAC = "one coordinate each, of every group of parameters that is clipped by itself"
    ORTHOGONAL = "random, at right angles to each other"


class Toggle(enum.Enum):
    """When a canary is in."""

    EVERY_STEP = "by its own fair coin at every step"
    SAMPLED = "by one fair coin for the run, and then in each lot with the sampling probability, as a record is"
    BY_RUN = "at every step of some runs and at none of the others"


class Access(enum.Enum):
    """What the adversary observes of a step."""

    RELEASED = "the released sum"
    ITERATES = "the parameters before and after"


@dataclass(frozen=True)
class Observations:
    """What was seen of m canaries over the T steps of one run.

    Attributes:
        values: (T, m) released sum less the known rest, along each canary, over the clipping norm of the step.
        present: (T, m) bool, which canaries were in which lot.
        included: (m,) bool, which canaries were in the run at all.
    """

    values: Float64Array
    present: BoolArray
    included: BoolArray


class GradientCanaries:
    """A probe that adds gradient canaries and records them.

    Args:
        canaries: How many, m, at least 1 and at most as many as there are parameters.
        max_grad_norm: Clipping norm C of the scheme, in whose units observations are; where the scheme moves it, the
            first, and each step's observations are in units of its own.
        seed: Names the directions and the coins.
        toggle: When a canary is in.
        directions: Which directions they have.
        access: What is observed.
        sampling_probability: Chance of an included canary to be in a lot, for SAMPLED.
        runs_with: Seeds of the models in which all canaries are, for BY_RUN.
        optimizer: Public update rule, for ITERATES.
        normaliser: Public divisor of the released sum, for ITERATES.
        groups: Names of parameters -> the group that each is clipped in; by default all are clipped together.
        thresholds: Clipping norm of each group, whose squares add up to that of C; by default C alone.

    Raises:
        ValueError: If a value is out of range, or iterates are to be read of an update other than SGD.

    Source: Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning" (canary gradients, access to
    iterates). They use one canary; orthogonal ones do not disturb each other, so we use many at once, as Steinke, Nasr
    and Jagielski 2023 do.
    """

    def __init__(
        self,
        canaries: int,
        *,
        max_grad_norm: float,
        seed: int,
        toggle: Toggle = Toggle.EVERY_STEP,
        directions: Directions = Directions.DIRAC,
        access: Access = Access.RELEASED,
        sampling_probability: float = 1.0,
        runs_with: frozenset[int] = frozenset(),
        optimizer: object = None,
        normaliser: float = 1.0,
        groups: Callable[[Sequence[str]], tuple[int, ...]] = lambda names: (0,) * len(names),
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self._groups, self._thresholds = groups, tuple(thresholds or (max_grad_norm,))
        if directions is Directions.ORTHOGONAL and len(self._thresholds) > 1:
            raise ValueError("directions are ORTHOGONAL, but groups of parameters are clipped apart; use DIRAC")
        if canaries < 1:
            raise ValueError(f"canaries is {canaries}; at least 1 is needed")
        if access is Access.ITERATES and not isinstance(optimizer, SGD):
            raise ValueError(
                f"the optimizer is {type(optimizer).__name__}; released sums can be worked out from iterates for SGD "
                "only: observe the released sum instead"
            )
        self.count, self.seed, self.access = canaries, seed, access
        self._scale, self._toggle, self._directions = max_grad_norm, toggle, directions
        self._probability, self._runs_with = sampling_probability, runs_with
        self._optimizer, self._normaliser = optimizer, normaliser
        self._coordinates = torch.empty(0, dtype=torch.long)
        self._basis = self._shares = torch.empty(0)
        self._seen: dict[int, dict[Step, Float64Array]] = {}
        self._velocity: dict[int, Tensors] = {}

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Choose the directions and return the gradients, far longer than the clipping norm."""
        sizes = {name: value.numel() for name, value in parameters.items()}
        total, like = sum(sizes.values()), next(iter(parameters.values()))
        if self.count > total:
            raise ValueError(f"{self.count} canaries in a network of {total} parameters; use at most as many")
        rng, norm = stream(self.seed, "directions"), MAGNITUDE * self._scale
        if self._directions is Directions.ORTHOGONAL:
            drawn = np.linalg.qr(rng.standard_normal((total, self.count)))[0].T
            self._basis = torch.from_numpy(np.ascontiguousarray(drawn)).to(like)
            parts = torch.split(self._basis, list(sizes.values()), dim=1)
            return {
                name: Materialised(norm * part.reshape(self.count, *parameters[name].shape))
                for name, part in zip(sizes, parts, strict=True)
            }
        self._shares = torch.tensor([norm / self._scale for norm in self._thresholds]).to(like)
        drawn = self._drawn(sizes, rng)
        self._coordinates = torch.from_numpy(drawn).to(like.device)
        found: dict[str, PerExample] = {}
        start = 0
        for (name, size), group in zip(sizes.items(), self._groups(list(sizes)), strict=True):
            inside = (drawn[:, group] >= start) & (drawn[:, group] < start + size)
            rows = torch.from_numpy(np.flatnonzero(inside)).to(like.device)
            places = self._coordinates[rows, group] - start
            found[name] = Dirac(self.count, rows, places, MAGNITUDE * self._thresholds[group], parameters[name])
            start += size
        return found

    def _drawn(self, sizes: Mapping[str, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the coordinate of each canary in each group of parameters, (m, G); no two canaries share one."""
        groups = np.repeat(self._groups(list(sizes)), list(sizes.values()))
        columns = []
        for group in range(len(self._thresholds)):
            there = np.flatnonzero(groups == group)
            if self.count > len(there):
                raise ValueError(
                    f"{self.count} canaries, but a group of parameters has {len(there)}; use at most as many"
                )
            columns.append(rng.choice(there, self.count, replace=False))
        return np.stack(columns, axis=1)

    def stretch(self, threshold: float) -> float:
        """Return how much longer canaries are at this threshold, so that it clips them as the first one does."""
        return threshold / self._scale

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return the canaries of a lot, by coins that are named by seed, model and step."""
        if self._toggle is Toggle.BY_RUN:
            return np.full(self.count, seed in self._runs_with)
        coins = stream(self.seed, "lots", seed, *step).random(self.count)
        if self._toggle is Toggle.EVERY_STEP:
            return coins < 0.5
        drawn: BoolArray = (coins < self._probability) & self.included(seed)
        return drawn

    def included(self, seed: int) -> BoolArray:
        """Return which canaries (m,) are in a model's run at all."""
        if self._toggle is Toggle.BY_RUN:
            return np.full(self.count, seed in self._runs_with)
        if self._toggle is Toggle.EVERY_STEP:
            return np.ones(self.count, dtype=np.bool_)
        drawn: BoolArray = stream(self.seed, "included", seed).random(self.count) < 0.5
        return drawn

    def read(self, reading: Reading) -> None:
        """Keep what is left of the released sum along each canary."""
        released = reading.released if self.access is Access.RELEASED else self._worked_out(reading)
        rest = torch.cat([(released[name] - value).flatten() for name, value in reading.sums.items()])
        dirac = self._directions is Directions.DIRAC
        along = rest[self._coordinates] @ self._shares if dirac else self._basis @ rest
        seen = self._seen.setdefault(reading.seed, {})
        threshold = self._scale if reading.threshold is None else reading.threshold
        seen[reading.step] = along.double().cpu().numpy() / threshold

    def observations(self, seed: int) -> Observations:
        """Return what was seen of one model's run, steps in order."""
        seen = self._seen[seed]
        steps = sorted(seen)
        present = np.stack([self.present(seed, step) for step in steps])
        return Observations(np.stack([seen[step] for step in steps]), present, self.included(seed))

    def _worked_out(self, reading: Reading) -> Tensors:
        """Return the released sum that made SGD take this step (see `defenses.updates.SGD`, solved for it)."""
        rule = self._optimizer
        assert isinstance(rule, SGD)
        if reading.step == (0, 0):
            self._velocity[reading.seed] = {}
        velocity, found = self._velocity[reading.seed], {}
        for name, before in reading.before.items():
            moved = (before - reading.after[name]) / reading.rate
            last = rule.momentum * velocity.get(name, torch.zeros_like(before))
            gradient = (moved - rule.momentum * last) / (1 + rule.momentum) if rule.nesterov else moved - last
            velocity[name] = last + gradient
            found[name] = (gradient - rule.weight_decay * before) * self._normaliser
        return found


class Dirac:
    """Gradients of one parameter that are zero but for one coordinate; most canaries have theirs elsewhere.

    Args:
        count: How many canaries there are, B.
        rows: (r,) those whose coordinate is in this parameter.
        places: (r,) where in the flattened parameter.
        norm: Value there.
        like: The parameter.
    """

    def __init__(self, count: int, rows: Tensor, places: Tensor, norm: float, like: Tensor) -> None:
        self.count, self.rows, self.places, self.norm, self.like = count, rows, places, norm, like

    @property
    def numbers(self) -> int:
        """One."""
        return 1

    def power(self, order: int) -> Tensor:
        """Return norm ** order (B,), zero for the canaries of other parameters."""
        return self.like.new_zeros(self.count).index_fill(0, self.rows, self.norm**order)

    def weighted(self, weights: Tensor) -> Tensor:
        """Return the sum over canaries of weight (B,) times gradient."""
        flat = self.like.new_zeros(self.like.numel()).index_add(0, self.places, self.norm * weights[self.rows])
        return flat.reshape(self.like.shape)

    def only(self, kept: Tensor) -> "Dirac":
        """Return the same without the canaries that are not kept (B,) bool."""
        left = kept[self.rows]
        return Dirac(self.count, self.rows[left], self.places[left], self.norm, self.like)


def log_likelihood_ratios(
    values: npt.ArrayLike, *, sampling_probability: float, noise_multiplier: float
) -> Float64Array:
    """Score canaries that were in the run, and then in each lot with probability q, against those that were not.

    An observation is N(0, s^2) without the canary and (1 - q) N(0, s^2) + q N(1, s^2) with it, independently over the
    steps, so the sum of log(1 - q + q exp((x - 1/2) / s^2)) is the most powerful score (Neyman and Pearson).

    Args:
        values: (T, m) observations in units of the clipping norm.
        sampling_probability: q in (0, 1].
        noise_multiplier: s above 0, as claimed.

    Returns:
        (m,) higher means included.

    Raises:
        ValueError: If a value is out of range.

    Examples:
        >>> log_likelihood_ratios([[0.5, 3.0]], sampling_probability=0.1, noise_multiplier=1.0).round(2)
        array([0.  , 0.75])
    """
    if not 0 < sampling_probability <= 1:
        raise ValueError(f"sampling_probability is {sampling_probability}; it must be in (0, 1]")
    if not noise_multiplier > 0:
        raise ValueError(f"noise_multiplier is {noise_multiplier}; it must be above 0")
    exponent = (np.asarray(values, dtype=np.float64) - 0.5) / noise_multiplier**2
    with np.errstate(divide="ignore"):
        absent, there = np.log1p(-sampling_probability), np.log(sampling_probability)
    return np.asarray(np.logaddexp(absent, there + exponent).sum(axis=0), dtype=np.float64)
