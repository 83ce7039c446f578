"""One look: each probe's figures over the models of a setting, judged by the upper end of its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from auditor.verdicts.judge import judge_leak
from reports.measures import measure
from reports.records.report import Estimate, Status
from reports.records.tuning import Look, Probe, Stage

STEPS = "white_box"
FAINT_BELOW = 10.0  # at smaller epsilons a generator's silence says nothing


@dataclass(frozen=True)
class LimitProbe:
    """One limit on one attack.

    Attributes:
        attack: Its name.
        title: What reports call it.
        measure: What is limited.
        limit: Its largest value.
        about: What the attack is run on.
        faint: Whether noise silences it long before it is private.
        named: Whether the limit is for this attack alone, so that no other can stand in for it.
    """

    attack: str
    title: str
    measure: str
    limit: float
    about: str = ""
    faint: bool = False
    named: bool = False

    def stands_in_for(self, other: "LimitProbe") -> bool:
        """Say whether what this probe says settles another's limit: of the same thing, and at least as strict."""
        alike = (self.measure, self.about) == (other.measure, other.about) and self.limit <= other.limit
        return self == other or (alike and not other.named)

    @property
    def baseline(self) -> float | None:
        """What guessing reaches; None where that is not known."""
        return measure(self.measure).baseline


@dataclass(frozen=True)
class Figures:
    """What one probe found at one setting.

    Attributes:
        each: One estimate for each model; empty where the attack could not be run here.
        doubt: Why a figure within the limit would not settle it, or None.
        reason: Why it could not be run.
    """

    each: tuple[Estimate, ...]
    doubt: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class SettingFacts:
    """What else is known of a setting.

    Attributes:
        epsilon: Proved of each model; None where nothing is.
        contradicted: A promise that was contradicted, in words; None if none was.
        failed: An attack that broke, in words; None if none did.
    """

    epsilon: float | None = None
    contradicted: str | None = None
    failed: str | None = None


def mean_over_runs(each: Sequence[Estimate], *, level: float) -> Estimate:
    """Return the mean of a measure over models, the model being the unit.

    Args:
        each: One estimate for each model, at least 2.
        level: Confidence of the two-sided interval, in (0, 1).

    Returns:
        The mean with Student's interval, which takes the mean of so many runs for normal, and never narrower than the
        runs' own intervals allow: runs that are all 0 have not shown that nothing leaks. A reason if one run has none.
    """
    missing = next((one.reason for one in each if one.value is None), None)
    method = f"Student's t over {len(each)} models"
    if missing is not None:
        return Estimate(method=method, level=level, n=len(each), unit="model", reason=missing)
    values = np.array([one.value for one in each], dtype=np.float64)
    mean = float(values.mean())
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    above, below = (
        math.sqrt(sum(side * side for side in sides)) / len(values)
        for sides in (
            [(one.high if one.high is not None else math.inf) - (one.value or 0.0) for one in each],
            [(one.value or 0.0) - (one.low if one.low is not None else -math.inf) for one in each],
        )
    )
    low, high = mean - max(reach, below), mean + max(reach, above)
    return Estimate(value=mean, low=low, high=high, level=level, method=method, n=len(values), unit="model")


def judge_setting(
    value: float,
    stage: Stage,
    asked: Sequence[LimitProbe],
    figures: Mapping[LimitProbe, Figures],
    sighted: Mapping[LimitProbe, Estimate],
    facts: SettingFacts,
    *,
    level: float,
) -> Look:
    """Judge one setting: WITHIN only if every limit has a probe that counts, and all of those are, at the whole error.

    That all have to be within is an intersection-union test, so nothing is divided by their number.

    Args:
        value: Of the knob.
        stage: What it is looked at for.
        asked: The limits.
        figures: What was found for each limit.
        sighted: The figure on the control, for the limits whose probes were seen to see.
        facts: What else is known.
        level: Confidence of two-sided intervals, 1 - 2 error: the upper end alone holds at 1 - error.

    Returns:
        The look, still without accuracies, reports and times.
    """
    probes = [_judged(one, figures[one], sighted, level=level) for one in asked]
    verdict, sentence, bound = _verdict(asked, probes, facts)
    return Look(
        stage=stage,
        value=value,
        verdict=verdict,
        sentence=sentence,
        probes=probes,
        bound_by=None if bound is None else bound.attack,
        bound_measure=None if bound is None else bound.measure,
        bound_limit=None if bound is None else bound.limit,
        epsilon=facts.epsilon,
    )


def _verdict(
    asked: Sequence[LimitProbe], probes: Sequence[Probe], facts: SettingFacts
) -> tuple[Status, str, Probe | None]:
    """Return the verdict on a setting, its sentence, and the probe that decides it or comes nearest to its limit."""
    if facts.failed is not None:
        return Status.ERROR, facts.failed, None
    if facts.contradicted is not None:
        return Status.VIOLATED, facts.contradicted, None
    counting = [probe for probe in probes if probe.counts]
    bound = max(counting, key=_beyond, default=None)
    if not counting:
        return Status.INCONCLUSIVE, "No probe could be judged here.", bound
    for status in (Status.LEAKS, Status.INCONCLUSIVE):
        deciding = next((probe for probe in counting if probe.status is status), None)
        if deciding is not None:
            return status, deciding.sentence, deciding
    return _without_gaps(asked, probes, facts, bound)


def _without_gaps(
    asked: Sequence[LimitProbe], probes: Sequence[Probe], facts: SettingFacts, bound: Probe | None
) -> tuple[Status, str, Probe | None]:
    """Return WITHIN, unless a limit has no probe that counts, or none of those that count can be silent credibly."""
    settled = [one for probe, one in zip(probes, asked, strict=True) if probe.counts]
    for probe, one in zip(probes, asked, strict=True):
        if not any(other.stands_in_for(one) for other in settled):
            sentence = f"Nothing settles the limit of {probe.limit:g} here. {probe.sentence}"
            return Status.INCONCLUSIVE, sentence, None
    if facts.epsilon is not None and facts.epsilon <= FAINT_BELOW and all(one.faint for one in settled):
        sentence = (
            f"Only generators were asked, whose silence says nothing at an epsilon of {facts.epsilon:.3g}: give a "
            "membership attack a limit, or gradient canaries ([white_box], and epsilon under [tune])."
        )
        return Status.INCONCLUSIVE, sentence, bound
    return Status.WITHIN, "Every limit is kept.", bound


def _judged(
    one: LimitProbe,
    figures: Figures,
    sighted: Mapping[LimitProbe, Estimate],
    *,
    level: float,
) -> Probe:
    def probe(found: Estimate, status: Status, sentence: str, *, counts: bool = True) -> Probe:
        return Probe(
            attack=one.attack,
            title=one.title,
            measure=one.measure,
            limit=one.limit,
            found=found,
            status=status,
            sentence=f"{one.title}: {sentence}",
            runs=[figure.value for figure in figures.each],
            counts=counts,
        )

    if not figures.each:
        why = figures.reason or "it did not run"
        nothing = Estimate(method="", reason=why)
        return probe(nothing, Status.INFORMATION, f"{why}; it decides nothing here.", counts=False)
    found = figures.each[0] if len(figures.each) == 1 else mean_over_runs(figures.each, level=level)
    if one.attack == STEPS:
        return probe(found, *_of_steps(found, one.limit))
    control = sighted.get(one)
    if control is None:
        said = "it was not seen to find a leak without protection, so its silence decides nothing."
        leaks = found.low is not None and found.low > one.limit
        return probe(found, Status.LEAKS if leaks else Status.INFORMATION, said, counts=leaks)
    judged = judge_leak(
        found,
        one.limit,
        control=control,
        baseline=one.baseline,
        control_required=True,
        measure=one.measure,
    )
    status, sentence = judged.status, judged.sentence
    worst = next((each for each in figures.each if each.low is not None and each.low > one.limit), None)
    if status is not Status.LEAKS and worst is not None:
        status = Status.LEAKS
        sentence = f"one model of {len(figures.each)} is surely above the limit, with {worst.value:.4g}."
    elif status is Status.WITHIN and figures.doubt is not None:
        status, sentence = Status.INCONCLUSIVE, f"{sentence} {figures.doubt}"
    return probe(found, status, sentence)


def _of_steps(found: Estimate, limit: float) -> tuple[Status, str]:
    """Judge what gradient canaries show; that they see needs no control: they are planted, and each in half of all."""
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    said = f"the steps stand for epsilon {found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
    if found.low > limit:
        return Status.LEAKS, f"{said}: surely above the limit {limit:g}."
    if found.high > limit:
        return Status.INCONCLUSIVE, f"{said}: the limit {limit:g} lies within; more canaries or steps would tell."
    return Status.WITHIN, f"{said}, at or below the limit {limit:g}."


def _beyond(probe: Probe) -> float:
    """Return how far the upper end is beyond the limit, as a share of what lies between guessing and the limit."""
    baseline = measure(probe.measure).baseline or 0.0
    high = probe.found.high
    return math.inf if high is None else (high - probe.limit) / max(probe.limit - baseline, 1e-9)
