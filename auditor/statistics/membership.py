"""Membership scores -> measures with intervals: every rate covers at its level, or says why it cannot be given.

Scores are higher for members. Everything depends on ranks only. `reports.measures` says what each measure
means.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from auditor.statistics.intervals import (
    Float64Array,
    auc_interval,
    auc_with_variance,
    binomial_lower,
    binomial_upper,
    bracketed_tpr,
    check_open_unit,
    check_scores,
    combined_reach,
    dkw_width,
)
from reports.records.report import Estimate


def auc(scores: npt.ArrayLike, members: npt.ArrayLike, *, level: float, unit: str = "record") -> Estimate:
    """Estimate the probability that a random member scores above a random non-member, ties counting one half.

    Args:
        scores: (n,) higher means member.
        members: (n,) bool.
        level: Confidence in (0, 1).
        unit: What one score stands for (see `auditor.statistics.units`).

    Returns:
        The area with DeLong's interval on the logit scale, or limits that also hold near 0 and 1 and with few records
        (see `auditor.statistics.intervals.auc_interval`); without members or non-members a reason.

    Raises:
        ValueError: If shapes differ, a score is NaN, or the level is out of range.

    Examples:
        >>> auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True], level=0.95).value
        0.75

    Source: DeLong et al. (1988); Newcombe (2006); Hoeffding (1963).
    """
    error = 1 - check_open_unit(level, name="level")
    ins, outs, missing = _sides(scores, members, method="DeLong (logit) interval", unit=unit)
    if missing is not None:
        return missing
    area, variance = auc_with_variance(ins, outs)
    low, high, method = auc_interval(area, variance, len(ins), len(outs), error=error)
    return _estimate(area, low, high, level=level, method=method, n=len(ins) + len(outs), unit=unit)


def tpr_at_fpr(
    scores: npt.ArrayLike, members: npt.ArrayLike, *, fpr: float, level: float, unit: str = "record"
) -> Estimate:
    """Estimate the share of members found when at most a share `fpr` of non-members is accused.

    The threshold comes from the same non-members as the rate, so their order statistics bracket it, and Clopper-Pearson
    limits are taken within the bracket; the error is shared (`auditor.statistics.intervals.bracketed_tpr`). Never
    interpolates. Takes what `auc` takes, and the target `fpr` in (0, 1).

    Returns:
        The rate at floor(n * fpr) false positives. Where the non-members cannot resolve `fpr`, no value but a reason.
        Where they can, but too few for a lower limit above 0, the reason says how many would do, beside the value.

    Raises:
        ValueError: If shapes differ, a score is NaN, or a rate is out of range.

    Examples:
        >>> tpr_at_fpr(range(400), [i >= 200 for i in range(400)], fpr=0.05, level=0.95).value
        1.0

    Source: the measure of Carlini et al. (2022); the interval is ours (order statistics as in David and Nagaraja, 7.1).
    """
    error = 1 - check_open_unit(level, name="level")
    check_open_unit(fpr, name="fpr")
    method = "Clopper-Pearson between order statistics of the non-members"
    ins, outs, missing = _sides(scores, members, method=method, unit=unit)
    if missing is not None:
        return missing
    n = len(ins) + len(outs)
    needed = math.ceil(1 / fpr - 1e-9)
    if len(outs) < needed:
        reason = (
            f"unresolvable: {len(outs):,} non-members cannot resolve a false-positive rate of {_percent(fpr)} "
            f"(at least {needed:,} needed)"
        )
        return Estimate(method=method, level=level, n=n, unit=unit, reason=reason)
    value, low, high = (float(part) for part in bracketed_tpr(ins, outs, fpr, error=error))
    enough = math.ceil(float(log_ndtr(-combined_reach(error / 2))) / math.log1p(-fpr))
    too_few = (
        f"{len(outs):,} non-members cannot give a lower limit above 0 at {_percent(fpr)} FPR: {enough:,} are needed"
    )
    note = too_few if len(outs) < enough else None
    return _estimate(value, low, high, level=level, method=method, n=n, unit=unit, reason=note)


def advantage(scores: npt.ArrayLike, members: npt.ArrayLike, *, level: float, unit: str = "record") -> Estimate:
    """Estimate the largest difference between true- and false-positive rate over all thresholds.

    The maximum is paid for: Dvoretzky-Kiefer-Wolfowitz bands hold at every threshold at once, each with half the error.

    Takes what `auc` takes.

    Returns:
        A value in [0, 1] with its interval; without members or non-members a reason.

    Raises:
        ValueError: If shapes differ, a score is NaN, or the level is out of range.

    Examples:
        >>> advantage([0.1, 0.2, 0.8, 0.9], [False, False, True, True], level=0.95).value
        1.0

    Source: Yeom et al. (2018), definition 4, maximised over thresholds; Massart (1990) for the bands.
    """
    error = 1 - check_open_unit(level, name="level")
    method = "Dvoretzky-Kiefer-Wolfowitz over all thresholds, both samples"
    ins, outs, missing = _sides(scores, members, method=method, unit=unit)
    if missing is not None:
        return missing
    thresholds = np.unique(np.concatenate([ins, outs]))
    found = 1 - np.searchsorted(np.sort(ins), thresholds, side="left") / len(ins)
    accused = 1 - np.searchsorted(np.sort(outs), thresholds, side="left") / len(outs)
    value = max(float((found - accused).max()), 0.0)
    slack = dkw_width(len(ins), error=error / 2) + dkw_width(len(outs), error=error / 2)
    n = len(ins) + len(outs)
    return _estimate(value, value - slack, value + slack, level=level, method=method, n=n, unit=unit)


def positive_predictive_value(tpr: Estimate, *, fpr: float, prior: float) -> Estimate:
    """Estimate how often an accusation is right if a share `prior` of candidates are members.

    Bayes' rule at the false-positive rate that `tpr` was taken at; it is increasing in the true-positive rate, so the
    ends of the interval map to ends.

    Args:
        tpr: From `tpr_at_fpr`.
        fpr: The rate it was taken at, in (0, 1).
        prior: In (0, 1); membership audits at one half flatter an attack, so also look at 0.1, 0.01 and 0.001.

    Examples:
        >>> found = Estimate(value=0.09, low=0.05, high=0.2, level=0.95, method="", n=100)
        >>> round(positive_predictive_value(found, fpr=0.01, prior=0.1).value, 6)
        0.5
    """
    check_open_unit(fpr, name="fpr")
    check_open_unit(prior, name="prior")

    def predictive(rate: float | None) -> float | None:
        return None if rate is None else rate * prior / (rate * prior + fpr * (1 - prior))

    return tpr.model_copy(
        update={
            "value": predictive(tpr.value),
            "low": predictive(tpr.low),
            "high": predictive(tpr.high),
            "method": f"Bayes' rule from the TPR at {_percent(fpr)} FPR ({tpr.method})",
        }
    )


def rate(successes: int, trials: int, *, level: float, unit: str = "record") -> Estimate:
    """Estimate a proportion of independent trials with its two-sided Clopper-Pearson interval.

    Raises:
        ValueError: If `successes` is not in 0 .. trials or the level is out of range.

    Examples:
        >>> round(rate(0, 10, level=0.95).high, 4)
        0.3085
    """
    error = 1 - check_open_unit(level, name="level")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes is {successes}; it must lie in 0..trials = {trials}")
    method = "Clopper-Pearson"
    if trials == 0:
        return Estimate(method=method, level=level, n=0, unit=unit, reason=f"no {unit} to take a rate of")
    low, high = (float(limit(successes, trials, error=error / 2)) for limit in (binomial_lower, binomial_upper))
    return _estimate(successes / trials, low, high, level=level, method=method, n=trials, unit=unit)


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _sides(
    scores: npt.ArrayLike, members: npt.ArrayLike, *, method: str, unit: str
) -> tuple[Float64Array, Float64Array, Estimate | None]:
    """Return members' and non-members' scores, and an estimate that says what is missing if a side is empty."""
    values, bits = check_scores(scores, members)
    ins, outs = values[bits], values[~bits]
    if ins.size and outs.size:
        return ins, outs, None
    lacking = " and ".join(name for name, side in (("members", ins), ("non-members", outs)) if not side.size)
    reason = f"no {lacking} among {values.size:,} scores; both are needed to compare"
    return ins, outs, Estimate(method=method, n=values.size, unit=unit, reason=reason)


def _estimate(
    value: float, low: float, high: float, *, level: float, method: str, n: int, unit: str, reason: str | None = None
) -> Estimate:
    """Return the estimate with its limits clipped to [0, 1] and, against rounding, to either side of the value."""
    return Estimate(
        value=value,
        low=min(max(low, 0.0), value),
        high=max(min(high, 1.0), value),
        level=level,
        method=method,
        n=n,
        unit=unit,
        reason=reason,
    )
