"""What probes could see: before anything is trained by the number of records, before the walk by planted leaks."""

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from auditor.evidence.run_attack import Evidence
from auditor.statistics import membership
from auditor.statistics.intervals import binomial_upper
from auditor.tuning.judging import LimitProbe, mean_over_runs
from auditor.white_box.step_bounds import LARGEST_EXCESS
from defenses.accounting import account
from defenses.defense import StepPromise
from defenses.errors import PlanError
from defenses.guarantee import Guarantee
from defenses.randomness import stream
from defenses.records import BoolArray
from reports.measures import ADVANTAGE, AUC, SIMILARITY, SIMILARITY_GAP, limited_measure, measure
from reports.records.report import Estimate
from reports.records.tuning import Sight

PLANTINGS, SURELY = 20, 16
_DRAWS = 25
_MOST_RECORDS, _MOST_TRIALS = 2_000_000, 2**30
_AVERAGED = (SIMILARITY, SIMILARITY_GAP)

Float64Array = npt.NDArray[np.float64]


def check_resolvable(one: LimitProbe, members: int, others: int, *, level: float, models: int, what: str) -> None:
    """Refuse a limit that even an attack which finds nothing would not keep, with so few records.

    Args:
        one: The limit.
        members: Independent units that are in.
        others: Units that are not.
        level: Of the two-sided interval of one setting.
        models: At each setting.
        what: Words for where the records come from.

    Raises:
        PlanError: Says how many would do.
    """
    if one.measure in _AVERAGED:
        return  # their spread is not known before
    high = _upper_end_of_nothing(one.measure, members, others, level=level, models=models)
    if high is not None and high <= one.limit:
        return
    needed = members
    while needed < _MOST_RECORDS:
        # Widths shrink with the square root of the number; without a rate there is nothing to go by yet.
        end = _upper_end_of_nothing(one.measure, needed, needed, level=level, models=models)
        if end is not None and end <= one.limit:
            break
        wider = 2.0 if end is None else ((end - _guessing(one)) / max(one.limit - _guessing(one), 1e-6)) ** 2
        needed = round(needed * max(wider, 1.1)) + 1
    more = f"about {_rounded(needed):,} of each would do" if needed < _MOST_RECORDS else "more records would not help"
    found = "no rate at all" if high is None else f"up to {high:.3g}"
    raise PlanError(
        f"limits: {limited_measure(one.measure).short} of {one.attack} may be at most {one.limit:g}, but with "
        f"{members:,} members and {others:,} others ({what}) even an attack that finds nothing is measured at {found}, "
        f"so no setting could pass; {more}"
    )


def check_steps_resolvable(limit: float, promise: StepPromise, trials: int, *, error: float, delta: float) -> None:
    """Refuse a limit on epsilon that steps exactly as promised would not keep, with so few canaries and steps.

    Args:
        limit: On the epsilon that steps stand for.
        promise: Of the setting with the strongest noise.
        trials: Canaries times steps.
        error: Of one upper end, in (0, 1).
        delta: In (0, 1).

    Raises:
        PlanError: Says how many trials would do; not if what is promised is itself above the limit.
    """

    def most(count: int) -> float:
        mu = 1 / promise.noise_multiplier
        right = round(count * float(special.ndtr(mu / 2)))
        upper = 2 * float(special.ndtri(binomial_upper(right, count, error=error)))
        if upper > LARGEST_EXCESS * mu:
            return math.inf
        found = account(promise.priced(1 / upper), delta=delta)
        return found.epsilon if isinstance(found, Guarantee) else math.inf

    promised = account(promise.priced(promise.noise_multiplier), delta=delta)
    found = most(trials)
    if found <= limit or not isinstance(promised, Guarantee) or promised.epsilon >= limit:
        return
    needed = trials
    while needed < _MOST_TRIALS and most(needed) > limit:
        needed *= 2
    more = f"about {_rounded(needed):,} would do" if needed < _MOST_TRIALS else "no number would do: it is too close"
    raise PlanError(
        f"tune: epsilon may be at most {limit:g}, but with {trials:,} canaries times steps even steps as promised "
        f"(epsilon {promised.epsilon:.3g}) are measured at up to {found:.3g}, so no setting could pass; {more}"
    )


@functools.cache
def _upper_end_of_nothing(measure: str, members: int, others: int, *, level: float, models: int) -> float | None:
    """Return the median upper end of the interval of a measure where scores know nothing; None without a value."""
    rng = stream(0, "resolvable", measure, members, others)
    included = np.arange(members + others) < members
    ends = []
    for _ in range(_DRAWS if members + others < 20_000 else 3):
        runs = [_measured(measure, rng.random(members + others), included, level) for _ in range(models)]
        found = runs[0] if models == 1 else mean_over_runs(runs, level=level)
        if found.high is None:
            return None
        ends.append(found.high)
    return float(np.median(ends))


def power_check(
    one: LimitProbe, control: Evidence | None, found: Estimate | None, *, level: float, models: int = 1
) -> Sight:
    """Say whether a probe can see: the control has to leak more than the limit, and a planted leak of its size to show.

    The planted leak is a mixture: so many members score as members of the control do, all others as its non-members,
    that the measure is expected at the limit.

    Args:
        one: The limit.
        control: What came of the attack on the control; None if it did not run there.
        found: Its measure there, at `level`.
        level: Of the two-sided interval.
        models: At each setting.
    """
    if control is None or found is None or found.value is None:
        why = "the attack did not run on the control" if found is None else f"there is no figure ({found.reason})"
        return _said(one, found or Estimate(method="", reason=why), f"{why}.", sees=False)
    blind = _blind(one, control, found, level=level)
    if blind is not None:
        return _said(one, found, blind, sees=False)
    beyond = "above the limit and surely above guessing" if one.baseline is not None else "surely above the limit"
    seen = f"{_without_protection(one, found)}, {beyond}"
    if one.measure in _AVERAGED or control.ranking is None:
        return _said(one, found, f"{seen}.", sees=True)
    scores, included, _ = control.by_unit
    planted = _seen_of_planted(one, scores, included, found.value, level=level, models=models)
    told = f"a planted leak of {one.limit:.4g} was told from none in"
    if planted < SURELY:
        more = _records_needed(one, scores, included, found.value, level=level)
        sentence = f"{seen}, but {told} only {planted} of {PLANTINGS} tries. {more}"
        return _said(one, found, sentence, sees=False, planted=planted)
    return _said(one, found, f"{seen}; {told} {planted} of {PLANTINGS} tries.", sees=True, planted=planted)


def _said(one: LimitProbe, control: Estimate, sentence: str, *, sees: bool, planted: int | None = None) -> Sight:
    return Sight(
        attack=one.attack, title=one.title, measure=one.measure, limit=one.limit, control=control,
        planted=planted, sees=sees, sentence=f"{one.title}: {sentence}",
    )  # fmt: skip


def _without_protection(one: LimitProbe, found: Estimate) -> str:
    return f"without protection its {limited_measure(one.measure).short} is {found.value:.4g}"


def _blind(one: LimitProbe, control: Evidence, found: Estimate, *, level: float) -> str | None:
    """Return why a figure on the control shows that the probe cannot see; None where it does not show that."""
    if one.baseline is not None and (found.low is None or found.low <= one.baseline):
        remedy = _remedy(one, control, found, level)
        return f"{_without_protection(one, found)}, not surely above the {one.baseline:g} of guessing. {remedy}"
    if one.baseline is None and (found.low is None or found.low <= one.limit):
        return (
            f"{_without_protection(one, found)}, not surely above the limit {one.limit:g}, and what guessing reaches "
            "is not known, so a figure within the limit shows nothing."
        )
    if found.value is not None and found.value <= one.limit:
        return (
            f"even {_without_protection(one, found)}, within the limit of {one.limit:g}, so that it finds no more than "
            "that says nothing: set a lower limit, train the control longer, or take a stronger attack."
        )
    return None


def _guessing(one: LimitProbe) -> float:
    """Return what guessing reaches in a measure of a ranking, which is always known."""
    assert one.baseline is not None
    return one.baseline


def _remedy(one: LimitProbe, control: Evidence, found: Estimate, level: float) -> str:
    ranks = control.ranking is not None and one.measure not in _AVERAGED
    if ranks and found.value is not None and found.value > _guessing(one):
        scores, included, _ = control.by_unit
        return _records_needed(one, scores, included, found.value, level=level)
    return "Train the control longer, on fewer records, or take a stronger attack."


def _records_needed(one: LimitProbe, scores: Float64Array, included: BoolArray, found: float, *, level: float) -> str:
    for times in (2, 4, 8, 16):
        if _seen_of_planted(one, scores, included, found, level=level, times=times) >= SURELY:
            return f"About {_rounded(times * len(scores)):,} candidates in place of {len(scores):,} would let it see."
    return (
        f"Even {16 * len(scores):,} candidates in place of {len(scores):,} would not do: train the control longer, or "
        "take a stronger attack."
    )


def _seen_of_planted(
    one: LimitProbe,
    scores: Float64Array,
    included: BoolArray,
    found: float,
    *,
    level: float,
    times: int = 1,
    models: int = 1,
) -> int:
    """Return in how many plantings a leak of the limit's size is told from none, with `times` as many candidates."""
    rng = stream(0, "planted", one.attack, one.measure, times)
    ins, outs = scores[included], scores[~included]
    most, base = _on_linear_scale(one.measure, found), _on_linear_scale(one.measure, _guessing(one))
    share = min(1.0, (_on_linear_scale(one.measure, one.limit) - base) / max(most - base, 1e-12))
    members, others = times * len(ins), times * len(outs)

    def run() -> Estimate:
        drawn = np.where(rng.random(members) < share, rng.choice(ins, members), rng.choice(outs, members))
        mixed = np.concatenate([drawn, rng.choice(outs, others)])
        return _measured(one.measure, mixed, np.arange(members + others) < members, level)

    seen = 0
    for _ in range(PLANTINGS):
        runs = [run() for _ in range(models)]
        measured = runs[0] if models == 1 else mean_over_runs(runs, level=level)
        if measured.low is not None and measured.low > _guessing(one):
            seen += 1
    return seen


def _on_linear_scale(name: str, value: float) -> float:
    """Return a value on a scale that is linear in the share of members that leak: a predictive value is not."""
    prior = measure(name).prior
    if prior is None or value >= 1:
        return value
    return 0.01 * value * (1 - prior) / (prior * (1 - value))  # the TPR behind it, at 1% FPR


def _measured(name: str, scores: Float64Array, included: BoolArray, level: float) -> Estimate:
    taken: dict[str, Callable[..., Estimate]] = {
        AUC: membership.auc,
        ADVANTAGE: membership.advantage,
    }
    if name in taken:
        return taken[name](scores, included, level=level)
    about = measure(name)
    if about.fpr is not None:
        return membership.tpr_at_fpr(scores, included, fpr=about.fpr, level=level)
    assert about.prior is not None
    tpr = membership.tpr_at_fpr(scores, included, fpr=0.01, level=level)
    return membership.positive_predictive_value(tpr, fpr=0.01, prior=about.prior)


def _rounded(count: int) -> int:
    """Round up to two digits."""
    scale = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // scale) * scale
