"""From evidence to findings: each limit and each claim judged, with the price of looking more than once paid.

Of the error 1 - confidence, one half goes to limits and one half to claims. Intervals are two-sided and only their
lower end can flag a leak, so limits are judged with the full two-sided error, divided by the number of attacks and
limits; the epsilon bound is one-sided and holds for the best of all attacks at 1 - error / 2, which it shares with the
bound that steps imply, and the one on reconstruction, where the plan asks for those too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attacks.protocol import Attack
from auditor.evidence.claim_kind import kind_of
from auditor.evidence.run_attack import Evidence
from auditor.plan.sections import DEFAULT_LIMIT, Limit
from auditor.plan.terms import Terms
from auditor.subject import AuditSubject
from auditor.verdicts.epsilon_claims import (
    CLAIM,
    MORE,
    EpsilonEvidence,
    Measures,
    beats_guessing,
    judge_claims,
    judge_reconstruction,
    judge_steps,
)
from auditor.verdicts.judge import judge_leak
from auditor.white_box.prior_aware import PriorAware
from auditor.white_box.step_bounds import StepAudit
from defenses.errors import PlanError
from reports.measures import limited_measure, measure
from reports.pages.wording import amount, confidence, exact_percent, interval, limit
from reports.records.report import AttackStatus, Estimate, Finding, Status

LEAK, FAILED, LEFT_OUT = "PA010", "PA090", "PA091"


def level_of_intervals(plan: Terms, attacks: Sequence[Attack]) -> float:
    """Return the level of each interval such that all that are judged hold together at the plan's confidence."""
    judged = sum(1 for limit in plan.limits for attack in attacks if applies(limit, attack))
    return 1 - (1 - plan.confidence) / max(judged, len(attacks), 1)


def applies(limit: Limit, attack: Attack) -> bool:
    """Say whether a limit is set for an attack, and is of its kind of claim."""
    return limit.attack in (None, attack.name) and kind_of(attack.claims).name in measure(limit.measure).claims


def check_limits(plan: Terms, attacks: Sequence[Attack]) -> None:
    """Refuse a limit that names no known measure, no attack of the plan, or a value that the measure cannot have."""
    for entry in plan.limits:
        try:
            baseline = limited_measure(entry.measure).baseline
        except ValueError as error:
            raise PlanError(f"limits: {error}") from error
        if not (baseline or 0.0) <= entry.maximum <= 1:
            why = "" if baseline is None else f", since guessing alone reaches {baseline:g}"
            raise PlanError(
                f"limits: maximum of {entry.measure} is {entry.maximum}; it must lie in [{baseline or 0.0:g}, 1]{why}"
            )
        names = [attack.name for attack in attacks]
        if entry.attack is not None and entry.attack not in names:
            raise PlanError(f"limits: attack {entry.attack!r} is not run by this plan; it runs {', '.join(names)}")
        if entry != DEFAULT_LIMIT and not any(applies(entry, attack) for attack in attacks):
            which = "no attack of this plan has" if entry.attack is None else f"attack {entry.attack!r} does not have"
            raise PlanError(f"limits: {which} the measure {entry.measure!r}: it is taken of another kind of claim")


def judge_all(
    evidence: Sequence[Evidence],
    found: Measures,
    control: Measures,
    shown: EpsilonEvidence,
    subject: AuditSubject,
    plan: Terms,
    implied: StepAudit | None = None,
    rebuilt: PriorAware | None = None,
) -> list[Finding]:
    """Judge every claim and every limit.

    Args:
        evidence: What came of each attack.
        found: attack -> measure -> estimate on the target.
        control: The same on the positive control; empty without one.
        shown: The epsilon bound.
        subject: What was audited.
        plan: Its limits.
        implied: What the steps of the training show, if they were watched.
        rebuilt: How often an added record was named, if that was tried.

    Returns:
        Findings in the order claims, limits, attacks that did not run.
    """
    findings = judge_claims(shown, subject, plan, found, control)
    if implied is not None:
        findings += judge_steps(implied, subject)
    if rebuilt is not None:
        findings.append(judge_reconstruction(rebuilt))
    for entry in evidence:
        if entry.status is AttackStatus.RAN:
            findings += [
                _leak(entry, chosen, found[entry.attack.name], control.get(entry.attack.name, {}), subject, plan)
                for chosen in plan.limits
                if applies(chosen, entry.attack)
            ]
    findings += [_did_not_run(entry) for entry in evidence if entry.status is not AttackStatus.RAN]
    asked = {entry.attack.name: (entry.question.about, entry.attack.claims) for entry in evidence}
    return [_without_weight(finding, findings, asked) for finding in findings]


def _without_weight(finding: Finding, findings: Sequence[Finding], asked: Mapping[str, tuple[str, type]]) -> Finding:
    """Let the silence of an attack that cannot see a leak decide nothing, where another one carries the limit.

    Only one that was run on the same thing and makes the same kind of claim can: a membership attack on the model says
    nothing about what gradients give away.
    """
    found, maximum = finding.found, finding.limit
    silent = (
        finding.code == LEAK
        and finding.status is Status.INCONCLUSIVE
        and found is not None
        and found.high is not None
        and maximum is not None
        and found.high <= maximum
    )
    carried = any(
        other.code == LEAK
        and other.measure == finding.measure
        and other.status in (Status.WITHIN, Status.LEAKS)
        and asked[other.attack or ""] == asked[finding.attack or ""]
        for other in findings
    )
    if not (silent and carried):
        return finding
    said = f"{finding.sentence} It decides nothing here: another attack carries this limit."
    return finding.model_copy(update={"counts": False, "sentence": said})


def headline(findings: Sequence[Finding], titles: Mapping[str, str]) -> str:
    """Return the one sentence of the report: the worst finding with its numbers."""
    counting = [finding for finding in findings if finding.counts]
    if not counting:
        return "Nothing was judged: no attack ran, or the plan sets no limit and nothing finite is claimed."
    worst = min(counting, key=lambda finding: (finding.status.severity, finding.code != CLAIM, -_size(finding)))
    if worst.code != LEAK or worst.found is None or worst.found.value is None:
        return worst.sentence
    assert worst.measure is not None
    assert worst.limit is not None
    sure = f"{confidence(worst.found.level)} {interval(worst.found, worst.measure)}"
    measured = f"{amount(worst.found.value, worst.measure)} ({sure})"
    what = _in_words(worst.measure, measured)
    verdict = {
        Status.LEAKS: f"above the limit of {limit(worst.limit, worst.measure)}",
        Status.WITHIN: f"within the limit of {limit(worst.limit, worst.measure)}",
    }.get(worst.status, f"undecided against the limit of {limit(worst.limit, worst.measure)}")
    return f"{titles[worst.attack or '']} {what}, {verdict}."


def _size(finding: Finding) -> float:
    if finding.found is None or finding.found.low is None or finding.limit is None:
        return float("-inf")
    return finding.found.low - finding.limit


def _in_words(name: str, measured: str) -> str:
    about = limited_measure(name)
    if about.fpr is not None:
        return f"finds {measured} of the members at {exact_percent(about.fpr)} FPR"
    return f"reaches {about.short} {measured}"


def _leak(
    entry: Evidence,
    chosen: Limit,
    found: Mapping[str, Estimate],
    control: Mapping[str, Estimate],
    subject: AuditSubject,
    plan: Terms,
) -> Finding:
    estimate, other = found[chosen.measure], control.get(chosen.measure)
    judged = judge_leak(
        estimate,
        chosen.maximum,
        control=other,
        baseline=measure(chosen.measure).baseline,
        control_required=plan.control.enabled,
        measure=chosen.measure,
        beats_guessing=beats_guessing(estimate, chosen.measure),
    )
    assert entry.joined is not None
    doubt = entry.joined.doubt(chosen.measure, chosen.maximum)
    if judged.status is Status.WITHIN and doubt is not None:
        judged = replace(judged, status=Status.INCONCLUSIVE, sentence=f"{judged.sentence} {doubt}")
    return Finding(
        code=LEAK,
        status=judged.status,
        title=f"{kind_of(entry.attack.claims).title}, {entry.attack.title}",
        sentence=f"{entry.attack.title}: {judged.sentence}",
        attack=entry.attack.name,
        measure=chosen.measure,
        limit=chosen.maximum,
        found=estimate,
        control=other,
        control_reason=None if other is not None else subject.control_reason or "the attack did not run on the control",
        more=MORE,
    )


def _did_not_run(entry: Evidence) -> Finding:
    failed = entry.status is AttackStatus.FAILED
    what = "failed" if failed else "could not be run"
    return Finding(
        code=FAILED if failed else LEFT_OUT,
        status=Status.ERROR if failed or entry.required else Status.INFORMATION,
        title="Attack failed" if failed else "Attack left out",
        sentence=f"{entry.attack.title} {what}: {entry.reason}.",
        attack=entry.attack.name,
        more=MORE,
    )
