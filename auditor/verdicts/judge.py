"""What was found against what was promised or allowed: the verdicts, each with one plain sentence.

A lower bound refutes, it never certifies; an attack that finds nothing on a model known to leak says nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from auditor.epsilon.bound import BoundKind, EpsilonBound
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from reports.measures import Scale, limited_measure
from reports.records.report import Estimate, Status

_NO_EVIDENCE = "this attack was not seen to find a leak, so a small figure is no evidence that there is none"


@dataclass(frozen=True)
class Judgement:
    """A verdict.

    Attributes:
        status: What is said.
        sentence: The same in words, with its numbers.
        scope: "run", or "step" where the bound takes sampling rate, steps and sampler on trust.
    """

    status: Status
    sentence: str
    scope: Literal["run", "step"] = "run"


def judge_claim(bound: EpsilonBound, guarantee: Guarantee | Unaccounted, *, said: str | None = None) -> Judgement:
    """Compare a lower bound on epsilon with a guarantee.

    The guarantee is first restated for the bound's delta and neighbours, if that can be done without making it stronger
    than it is: at a larger delta it holds as it stands, at a smaller one by its own curve; ADD_REMOVE at
    (epsilon, delta) gives REPLACE_ONE at (2 epsilon, (1 + e^epsilon) delta).

    Args:
        bound: What an attack showed.
        guarantee: What was claimed or proved.
        said: How the sentence begins, where it was no attack that showed it: "Gradient canaries imply".

    Returns:
        VIOLATED if the bound is above the guarantee; else INCONCLUSIVE if not even the ceiling is (or nothing finite is
        promised); else CONSISTENT. NOT_COMPARABLE if delta, unit or neighbours cannot be reconciled.

    Source: group privacy for pairs, Dwork and Roth (2014), theorem 2.2 and its (epsilon, delta) form.
    """
    scope: Literal["run", "step"] = "step" if bound.kind is BoundKind.IMPLIED else "run"

    def judged(status: Status, sentence: str) -> Judgement:
        return Judgement(status, sentence, scope)

    if isinstance(guarantee, Unaccounted):
        return judged(Status.NOT_COMPARABLE, f"There is no guarantee to compare with: {guarantee.reason}.")
    if bound.unit is not guarantee.unit:
        return judged(
            Status.NOT_COMPARABLE,
            f"The bound is about one {bound.unit.value}, the guarantee about one {guarantee.unit.value}: "
            "they cannot be compared.",
        )
    shown = _shown(bound, said)
    restated = (math.inf, "") if math.isinf(guarantee.epsilon) else _restate(bound, guarantee)
    if isinstance(restated, str):
        return judged(Status.NOT_COMPARABLE, restated)
    epsilon, promised = restated
    if math.isinf(epsilon):
        return judged(
            Status.INCONCLUSIVE,
            f"{shown}, but nothing finite is promised at delta {bound.delta:g}: no bound could contradict it.",
        )
    if bound.lower > epsilon:
        if scope == "step":
            return judged(
                Status.VIOLATED,
                f"{shown}, above {promised}. This contradicts the step, its clipping and noise: sampling rate, number "
                "of steps and sampler are taken on trust, so it says nothing about the run as a whole.",
            )
        return judged(Status.VIOLATED, f"{shown}, above {promised}: the guarantee is contradicted.")
    if bound.ceiling <= epsilon:
        return judged(
            Status.INCONCLUSIVE,
            f"{shown}, and with so many trials it could not have shown more than {_number(bound.ceiling)}, which is "
            f"not above {promised}: this audit could not have found a contradiction.",
        )
    of_step = " This tests the step only, not the run as a whole." if scope == "step" else ""
    return judged(
        Status.CONSISTENT,
        f"{shown}, not above {promised}: no contradiction found (up to {_number(bound.ceiling)} could have been shown)."
        f"{of_step}",
    )


def judge_leak(
    found: Estimate,
    limit: float,
    *,
    control: Estimate | None,
    baseline: float | None,
    control_required: bool,
    measure: str | None = None,
    beats_guessing: bool = False,
) -> Judgement:
    """Compare a measured leak with the limit that is set for it.

    Args:
        found: The measure on the audited model.
        limit: The largest value allowed.
        control: The same measure by the same attack on a model that is known to leak.
        baseline: What guessing reaches; None where that is not known.
        control_required: Whether WITHIN needs a control at all. One that is given and fails always forbids it.
        measure: Its name in `reports.measures`, for the sentence.
        beats_guessing: Whether the attack surely beats guessing on the audited model itself, which takes the place of
            a control. Has no effect where it is not known what guessing reaches.

    Returns:
        LEAKS if the lower limit is above `limit`. WITHIN if the upper limit is at or below it and the attack was seen
        to find a leak: the control's lower limit is above `baseline` or, where that is not known, above `limit`. Else
        INCONCLUSIVE, with what would resolve it.

    Raises:
        ValueError: If `limit` or `baseline` is NaN, or there is no measure of that name.

    Examples:
        >>> found = Estimate(value=0.9, low=0.8, high=0.95, level=0.95, method="", n=100)
        >>> judge_leak(found, 0.6, control=None, baseline=0.5, control_required=True).status.value
        'leaks'
    """
    if math.isnan(limit) or (baseline is not None and math.isnan(baseline)):
        raise ValueError(f"limit is {limit} and baseline {baseline}; both must be numbers")
    about = None if measure is None else limited_measure(measure)
    name = "the measure" if about is None else about.short
    write = _percent if about is not None and about.scale is Scale.SHARE else _number
    if found.value is None:
        return Judgement(Status.INCONCLUSIVE, f"{_capital(name)} could not be measured: {found.reason}.")
    if found.low is None or found.high is None:
        return Judgement(
            Status.INCONCLUSIVE,
            f"{_capital(name)} is {write(found.value)} but has no interval, so it cannot be judged against the limit "
            f"{write(limit)}.",
        )
    measured = f"{_capital(name)} is {_with_interval(found, write)}"
    if found.low > limit:
        return Judgement(Status.LEAKS, f"{measured}: even the lower end is above the limit {write(limit)}.")
    if found.high > limit:
        sentence = f"{measured}: the interval contains the limit {write(limit)}. {_remedy(found, limit)}"
        return Judgement(Status.INCONCLUSIVE, sentence)
    below = f"{measured}: the upper end is at or below the limit {write(limit)}"
    if beats_guessing and baseline is not None:
        return Judgement(Status.WITHIN, f"{below}, and the attack surely beats guessing on this very model.")
    return _with_control(below, limit, control=control, baseline=baseline, required=control_required, write=write)


def _with_control(
    below: str,
    limit: float,
    *,
    control: Estimate | None,
    baseline: float | None,
    required: bool,
    write: Callable[[float], str],
) -> Judgement:
    """Judge a figure within its limit by what the same attack finds on a model that is known to leak."""
    if control is None and not required and baseline is not None:
        return Judgement(Status.WITHIN, f"{below}. No control shows that this attack could have found a leak.")
    if control is None:
        unknown = "" if baseline is not None else ", and what guessing reaches in this measure is not known"
        sentence = (
            f"{below}, but there is no control: whether this attack finds anything on a leaky model is not known"
            f"{unknown}."
        )
        return Judgement(Status.INCONCLUSIVE, sentence)
    if control.value is None:
        sentence = f"{below}, but the control, a model known to leak, could not be measured: {control.reason}."
        return Judgement(Status.INCONCLUSIVE, sentence)
    finds = f"on a model known to leak the same attack finds {_with_interval(control, write)}"
    threshold = limit if baseline is None else baseline
    if control.low is not None and control.low > threshold:
        return Judgement(Status.WITHIN, f"{below}, and {finds}.")
    if baseline is None:
        reason = f"not surely above the limit, and what guessing reaches in this measure is not known: {_NO_EVIDENCE}"
    else:
        reason = f"not surely above the {write(baseline)} of guessing: {_NO_EVIDENCE}"
    return Judgement(Status.INCONCLUSIVE, f"{below}, but {finds}, {reason}.")


def _restate(bound: EpsilonBound, guarantee: Guarantee) -> tuple[float, str] | str:
    """Return what the guarantee promises at the bound's delta and neighbours, as number and words, or why it cannot."""
    stated = f"the guaranteed epsilon {_number(guarantee.epsilon)} at delta {guarantee.delta:g}"
    if bound.neighboring is guarantee.neighboring:
        if bound.delta >= guarantee.delta:
            return guarantee.epsilon, stated
        if guarantee.epsilon_at is None:
            return _other_delta(bound, guarantee.delta)
        epsilon = guarantee.epsilon_at(bound.delta)
        return epsilon, f"the guaranteed epsilon {_number(epsilon)} at delta {bound.delta:g}"
    if guarantee.neighboring is Neighboring.REPLACE_ONE:
        return (
            f"The bound is for {bound.neighboring.value}, the guarantee for {guarantee.neighboring.value}: one about "
            "replacing promises nothing about adding or removing."
        )
    epsilon, needed = guarantee.epsilon, _pair_delta(guarantee.epsilon, guarantee.delta)
    if bound.delta < needed:
        if guarantee.epsilon_at is None:
            return _other_delta(bound, needed)
        halved = _epsilon_for_pairs(guarantee.epsilon_at, bound.delta)
        if halved is None:
            return _other_delta(bound, needed)
        epsilon = halved
        stated = "the guaranteed curve"
    return 2 * epsilon, (
        f"{_number(2 * epsilon)}, to which {stated} for {guarantee.neighboring.value} amounts for "
        f"{bound.neighboring.value} at delta {bound.delta:g}"
    )


def _pair_delta(epsilon: float, delta: float) -> float:
    """Return (1 + e^epsilon) delta, where a pure guarantee stays pure."""
    if delta == 0:
        return 0.0
    return (1 + math.exp(epsilon)) * delta if epsilon < 700 else math.inf


def _epsilon_for_pairs(epsilon_at: Callable[[float], float], delta: float) -> float | None:
    """Return epsilon at a single delta whose pair delta is at most `delta`, the largest found by bisection; or None."""
    if delta == 0:
        pure = epsilon_at(0.0)
        return None if math.isinf(pure) else pure
    low, high = math.log(delta) - 60, math.log(delta)  # exp(-60): beyond what any accountant resolves
    if _pair_delta(epsilon_at(math.exp(low)), math.exp(low)) > delta:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        if _pair_delta(epsilon_at(math.exp(middle)), math.exp(middle)) <= delta:
            low = middle
        else:
            high = middle
    return epsilon_at(math.exp(low))


def _other_delta(bound: EpsilonBound, needed: float) -> str:
    return (
        f"The bound holds at delta {bound.delta:g}, the guarantee only from delta {needed:g} up: "
        f"they cannot be compared; audit at delta {needed:g} or more."
    )


def _shown(bound: EpsilonBound, said: str | None) -> str:
    credible = bound.kind is BoundKind.CREDIBLE
    certainty = f"{_percent(bound.confidence)} {'credibility, a Bayesian statement' if credible else 'confidence'}"
    said = said or ("The attack implies" if bound.kind is BoundKind.IMPLIED else "The attack shows")
    least = math.floor(bound.lower * 1000) / 1000  # "at least" must not be rounded up
    return f"{said} epsilon of at least {least:.4g} at delta {bound.delta:g} ({certainty})"


def _remedy(found: Estimate, limit: float) -> str:
    """Return how many records would resolve it, from widths that shrink with the square root of their number."""
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    above = found.value > limit
    if above and found.reason is not None:  # the estimate knows better what it lacks
        return f"{_capital(found.reason)}."
    gap = abs(found.value - limit)
    if gap == 0 or not found.n:
        return "It lies so close to the limit that no number of records can be named that would tell them apart."
    reach = (found.value - found.low if above else found.high - found.value) / gap
    return (
        f"About {_two_digits(found.n * max(reach, 1.0) ** 2):,} instead of {found.n:,} {found.unit}s would resolve it."
    )


def _with_interval(found: Estimate, write: Callable[[float], str]) -> str:
    assert found.value is not None
    if found.low is None or found.high is None:
        return f"{write(found.value)} (no interval)"
    level = "" if found.level is None else f"{_percent(found.level)} "
    return f"{write(found.value)} ({level}CI {write(found.low)} to {write(found.high)})"


def _two_digits(count: float) -> int:
    """Round up to two significant digits."""
    scale = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(count / scale - 1e-9) * scale


def _number(value: float) -> str:
    return f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
