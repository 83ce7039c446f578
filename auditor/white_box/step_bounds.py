"""From observed steps to an implied epsilon: error rates, the per-step mu, a noise multiplier, the run's own event.

A step of the Gaussian mechanism with noise multiplier s is mu-GDP with mu = 1 / s: no test of whether a record was in
the lot has error rates below the trade-off curve G_mu. Observed rates therefore give a lower limit on mu, which is an
upper limit on s, and the run's own accounting turns that into epsilon. It is *implied*: the sampling rate, the number
of steps and the sampler are taken on trust, and so is that the noise is Gaussian; what is tested is the scheme's rule
of clipping, by norms that are known, and its noise.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from auditor.epsilon.balanced_bound import mu_from_guesses
from auditor.epsilon.bound import BoundKind, EpsilonBound
from auditor.epsilon.gaussian_bound import mu_limit
from auditor.statistics.intervals import Float64Array, binomial_upper, check_open_unit
from defenses.accounting import account
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.records import BoolArray

CANARIES_ARE_GRADIENTS = "The norms and sums of real records' gradients are what the training says they are."
THRESHOLD = 0.5  # midway between what is seen without the canary and with it
LARGEST_EXCESS = 2.0  # a step that lets through more times its claimed mu is priced at so many: accounting stays quick

MakeEvent = Callable[[float], Any]


@dataclass(frozen=True)
class StepClaim:
    """What a scheme says of its steps, and how its run is priced.

    Attributes:
        max_grad_norm: C, the most that one record adds to the sum.
        noise_multiplier: Standard deviation of the noise over C, above 0.
        sampling_probability: Chance of a record to be in a lot, in (0, 1].
        make_event: noise multiplier -> dp_accounting event of the whole run, all else as claimed.
        thresholds: The same for each group of parameters that is clipped by itself; empty where there is one.
        moves: Whether C is that of the first step alone, and later ones have their own.
    """

    max_grad_norm: float
    noise_multiplier: float
    sampling_probability: float
    make_event: MakeEvent
    thresholds: tuple[float, ...] = ()
    moves: bool = False


@dataclass(frozen=True)
class StepAudit:
    """What the steps of a run show.

    Attributes:
        gaussian: Bound from guesses at the threshold 1/2.
        clopper_pearson: Bound from limits on both rates at every threshold of a grid.
        gaussian_mu: Lower limit on the per-step mu behind `gaussian`; its inverse limits the noise multiplier.
        clopper_pearson_mu: The same behind `clopper_pearson`.
        trials: Steps times canaries.
        likely: Epsilon that the share of right guesses stands for.
        most: Epsilon that it surely does not go beyond, at the bounds' confidence; infinite beyond what is priced. It
            is about these canaries and this adversary, not about every record.
    """

    gaussian: EpsilonBound
    clopper_pearson: EpsilonBound
    gaussian_mu: float
    clopper_pearson_mu: float
    trials: int
    likely: float = math.nan
    most: float = math.inf


def implied_epsilon(mu: float, claim: StepClaim, *, delta: float) -> float:
    """Return the epsilon of a run whose every step has this mu, by the run's own event at noise multiplier 1 / mu.

    Args:
        mu: At least 0; above `LARGEST_EXCESS` times the claimed mu it is priced at that.
        claim: How the run is priced.
        delta: In (0, 1).

    Raises:
        ValueError: If no accountant knows the event.
    """
    if mu <= 0:
        return 0.0
    found = account(claim.make_event(max(1 / mu, claim.noise_multiplier / LARGEST_EXCESS)), delta=delta)
    if not isinstance(found, Guarantee):
        raise ValueError(f"the run cannot be priced ({found.reason}), so its steps imply no epsilon")
    return found.epsilon


def mu_limits(
    values: npt.ArrayLike,
    present: npt.NDArray[np.bool_],
    *,
    balanced: bool,
    error: float,
    thresholds: Sequence[float] = (THRESHOLD,),
) -> tuple[float, float]:
    """Return two lower limits on the per-step mu: from guesses at 1/2, and from both rates at several thresholds.

    The second is free of the coins' balance and of the threshold 1/2. At each threshold, with its share of the error,
    both Clopper-Pearson limits hold at once; with them TPR - e^epsilon FPR <= delta(epsilon) is refuted or not for all
    epsilon together, and the smallest mu whose Gaussian profile allows what is left is Phi^-1(TPR) - Phi^-1(FPR), by
    the duality of privacy profile and trade-off curve.

    Args:
        values: Any shape, one observation per canary and step in units of the clipping norm.
        present: The same shape, bool: whether the canary was in the lot.
        balanced: Whether presence was by fair coins, or in exactly half of the trials; otherwise the guesses at 1/2
            are judged by both rates as well.
        error: In (0, 1), for each of the two limits by itself.
        thresholds: Fixed without the observations.

    Raises:
        ValueError: If shapes differ, a value is NaN, a side is empty, or the error is out of range.

    Source: Nasr et al. (2023); Dong, Roth and Su (2022), proposition 2.12, for the duality.
    """
    x, there = _checked(values, present)
    ins, outs = np.sort(x[there]), np.sort(x[~there])

    def errors(grid: Sequence[float]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return len(outs) - np.searchsorted(outs, grid, side="left"), np.searchsorted(ins, grid, side="left")

    at_half, each = errors([THRESHOLD]), check_open_unit(error, name="error") / len(thresholds)
    if balanced:
        by_guesses = mu_from_guesses(int(at_half[0][0] + at_half[1][0]), x.size, error=error)
    else:
        by_guesses = float(mu_limit(at_half[0], len(outs), at_half[1], len(ins), error=error)[0])
    false_positives, false_negatives = errors(thresholds)
    by_rates = float(mu_limit(false_positives, len(outs), false_negatives, len(ins), error=each).max())
    return by_guesses, by_rates


def audit_observations(
    values: npt.ArrayLike,
    present: npt.NDArray[np.bool_],
    claim: StepClaim,
    *,
    balanced: bool,
    delta: float,
    confidence: float,
) -> StepAudit:
    """Bound epsilon from observations of canaries at single steps, in two ways (see `mu_limits`).

    The thresholds of the second way are 1/2 and one claimed noise deviation to either side.

    Args:
        values: Any shape, one observation per canary and step in units of the clipping norm.
        present: The same shape, bool: whether the canary was in the lot.
        claim: What the scheme says; its event and its thresholds enter the bounds, which hold whatever it says.
        balanced: Whether presence was by fair coins, or in exactly half of the trials.
        delta: In (0, 1).
        confidence: In (0, 1), for each of the two ways by itself.

    Returns:
        Both bounds, of kind IMPLIED.

    Raises:
        ValueError: As `mu_limits`, or if the claim's event cannot be priced.

    Examples:
        >>> audit_observations(seen.values, seen.present, claim, balanced=True, delta=1e-5, confidence=0.95)
        ...     # doctest: +SKIP

    Source: Nasr et al. (2023), "Tight Auditing of Differentially Private Machine Learning".
    """
    error = 1 - check_open_unit(confidence, name="confidence")
    grid = (THRESHOLD, THRESHOLD - claim.noise_multiplier, THRESHOLD + claim.noise_multiplier)
    limits = functools.partial(mu_limits, present=present, balanced=balanced, error=error)
    by_guesses, by_rates = limits(values, thresholds=grid)
    most = limits(np.where(present, np.inf, -np.inf), thresholds=grid)  # as good as any trials could look
    price = functools.cache(functools.partial(implied_epsilon, claim=claim, delta=delta))
    right = int(((np.asarray(values) >= THRESHOLD) == present).sum())
    largest = LARGEST_EXCESS / claim.noise_multiplier
    mu = 2 * float(special.ndtri(right / present.size))
    mu_most = 2 * float(special.ndtri(binomial_upper(right, present.size, error=error)))

    def bound(mu: float, most: float, method: str) -> EpsilonBound:
        lower, ceiling = price(mu), price(min(most, largest))
        return _implied(lower, max(lower, ceiling), method, delta=delta, confidence=confidence)

    return StepAudit(
        gaussian=bound(by_guesses, most[0], "per-step GDP from guesses at 1/2, priced by the run's event"),
        clopper_pearson=bound(by_rates, most[1], "per-step Clopper-Pearson profile, priced by the run's event"),
        gaussian_mu=by_guesses,
        clopper_pearson_mu=by_rates,
        trials=present.size,
        likely=price(min(mu, largest)),
        most=price(mu_most) if mu_most <= largest else math.inf,
    )


def _implied(lower: float, ceiling: float, method: str, *, delta: float, confidence: float) -> EpsilonBound:
    return EpsilonBound(
        lower=lower,
        delta=delta,
        neighboring=Neighboring.ADD_REMOVE,
        unit=Unit.RECORD,
        confidence=confidence,
        method=method,
        kind=BoundKind.IMPLIED,
        assumptions=(
            "Sampling rate, number of steps and Poisson sampling are as claimed; only the rule of clipping and the "
            "noise are seen.",
            CANARIES_ARE_GRADIENTS,
            "Noise is Gaussian, and independent between steps and between coordinates.",
            "The adversary sees every step and knows all other records.",
        ),
        ceiling=ceiling,
    )


def _checked(values: npt.ArrayLike, present: npt.NDArray[np.bool_]) -> tuple[Float64Array, BoolArray]:
    x = np.asarray(values, dtype=np.float64)
    if x.shape != present.shape or present.dtype != np.bool_:
        raise ValueError(
            f"values have shape {x.shape}, present is {present.dtype} of shape {present.shape}; give one bool for each"
        )
    broken = int(np.isnan(x).sum())
    if broken:
        raise ValueError(f"{broken} of {x.size} observations are NaN: the run has diverged; lower its learning rate")
    if present.all() or not present.any():
        raise ValueError("all trials are with the canary, or all without; both are needed, by fair coins")
    return x, present
