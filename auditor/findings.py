"""From evidence to findings: each limit and each claim judged, with the price of looking more than once paid.

Of the error 1 - confidence, one half goes to limits and one half to claims. Intervals are two-sided and only their
lower end can flag a leak, so limits are judged with the full two-sided error, divided by the number of attacks and
limits; the epsilon bound is one-sided and holds for the best of all attacks at 1 - error / 2, which it shares with the
bound that steps imply where the plan asks for that too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from auditor import metrics
from auditor.bound_types import EpsilonBound
from auditor.bounds import OneRunAudit, one_run_from_scores
from auditor.evidence import Evidence
from auditor.judge import judge_claim, judge_leak
from auditor.plan import Limit, Plan
from auditor.step_bounds import StepAudit
from auditor.subject import Subject
from defenses.errors import PlanError
from defenses.guarantee import Guarantee, Unaccounted, Unit
from defenses.records import Inclusion
from reports.record import AttackStatus, Estimate, Finding, Status
from reports.wording import amount, confidence, exact_percent, interval, limit

CLAIM, PROOF, STEP, LEAK, FAILED, LEFT_OUT = "PA001", "PA002", "PA003", "PA010", "PA090", "PA091"
MORE = "docs/findings.md"

Measures = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Shown:
    """The best lower bound over all attacks, or why there is none."""

    audit: OneRunAudit | None
    attack: str | None = None
    reason: str | None = None

    @property
    def bound(self) -> EpsilonBound | None:
        """The bound itself."""
        return None if self.audit is None else self.audit.bound


def level_of_intervals(plan: Plan, attacks: Sequence[str]) -> float:
    """Return the level of each interval such that all that are judged hold together at the plan's confidence."""
    judged = sum(1 for limit in plan.limits for attack in attacks if limit.attack in (None, attack))
    return 1 - (1 - plan.confidence) / max(judged, len(attacks), 1)


def confidence_of_claims(plan: Plan) -> float:
    """Return the confidence of each bound on epsilon, such that all claims together get half of the error."""
    return 1 - (1 - plan.confidence) / (2 if plan.white_box is None else 4)


def check_limits(plan: Plan, attacks: Sequence[str]) -> None:
    """Refuse a limit that names no known measure, no attack of the plan, or a value that the measure cannot have."""
    for entry in plan.limits:
        try:
            baseline, name = metrics.baseline_of(entry.measure), metrics.canonical_name(entry.measure)
        except ValueError as error:
            raise PlanError(f"limits: {error}") from error
        if entry.measure != name:
            raise PlanError(f"limits: measure {entry.measure!r} is spelled {name!r}")
        if not baseline <= entry.maximum <= 1:
            raise PlanError(
                f"limits: maximum of {entry.measure} is {entry.maximum}; it must lie in [{baseline:g}, 1], since "
                f"guessing alone reaches {baseline:g}"
            )
        if entry.attack is not None and entry.attack not in attacks:
            raise PlanError(f"limits: attack {entry.attack!r} is not run by this plan; it runs {', '.join(attacks)}")


def show_epsilon(evidence: Sequence[Evidence], subject: Subject, plan: Plan) -> Shown:
    """Return the best one-run bound over the attacks that ran, corrected for having the choice."""
    if subject.split.inclusion is not Inclusion.INDEPENDENT:
        return Shown(
            None,
            reason=f"membership was {subject.split.inclusion.value}; a bound on epsilon needs fair coins",
        )
    ran = [entry for entry in evidence if entry.status is AttackStatus.RAN]
    if not ran:
        return Shown(None, reason="no attack ran")
    audits = []
    for entry in ran:
        scores, included, _ = entry.by_unit
        audit = one_run_from_scores(
            scores,
            included,
            inclusion=subject.split.inclusion,
            delta=plan.judged_delta,
            confidence=confidence_of_claims(plan),
            probability=subject.split.probability,
            comparisons=len(ran),
        )
        audits.append((audit, entry.attack.name))
    best, name = max(audits, key=lambda found: found[0].bound.lower)
    if subject.target.candidates.units is not None:  # whole groups were in or out together
        best = replace(best, bound=replace(best.bound, unit=Unit.USER))
    return Shown(best, attack=name)


def judge_all(
    evidence: Sequence[Evidence],
    found: Measures,
    control: Measures,
    shown: Shown,
    subject: Subject,
    plan: Plan,
    implied: StepAudit | None = None,
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

    Returns:
        Findings in the order claims, limits, attacks that did not run.
    """
    findings = _claims(shown, subject, plan, found, control)
    if implied is not None:
        findings += _steps(implied, subject)
    for entry in evidence:
        if entry.status is AttackStatus.RAN:
            findings += [
                _leak(entry, chosen, found[entry.attack.name], control.get(entry.attack.name, {}), subject, plan)
                for chosen in plan.limits
                if chosen.attack in (None, entry.attack.name)
            ]
    findings += [_did_not_run(entry) for entry in evidence if entry.status is not AttackStatus.RAN]
    return [_without_weight(finding, findings) for finding in findings]


def _without_weight(finding: Finding, findings: Sequence[Finding]) -> Finding:
    """Let the silence of an attack that cannot see a leak decide nothing, where another one carries the limit."""
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
        other.code == LEAK and other.measure == finding.measure and other.status in (Status.WITHIN, Status.LEAKS)
        for other in findings
    )
    if not (silent and carried):
        return finding
    said = f"{finding.sentence} It decides nothing here: another attack carries this limit."
    return finding.model_copy(update={"counts": False, "sentence": said})


def headline(findings: Sequence[Finding], titles: Mapping[str, str]) -> str:
    """Return the one sentence of the report: the worst finding with its numbers."""
    order = list(Status)
    counting = [finding for finding in findings if finding.counts]
    if not counting:
        return "Nothing was judged: no attack ran, or the plan sets no limit and nothing finite is claimed."
    worst = min(counting, key=lambda finding: (order.index(finding.status), finding.code != CLAIM, -_size(finding)))
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


def _in_words(measure: str, measured: str) -> str:
    if measure.startswith("tpr_at_fpr_"):
        return f"finds {measured} of the members at {exact_percent(metrics.baseline_of(measure))} false alarms"
    return f"reaches {metrics.describe(measure)} {measured}"


def _sees(estimate: Estimate, measure: str = metrics.AUC) -> bool:
    """Say whether an attack surely beats guessing."""
    return estimate.low is not None and estimate.low > metrics.baseline_of(measure)


def _sight(found: Measures, control: Measures) -> tuple[bool, str]:
    """Say whether any attack was seen to find a leak, and in words where: the bound is the best of all of them."""
    for tables, where in ((control, "the control"), (found, "this very model")):
        seen = [(table[metrics.AUC].value or 0.0, name) for name, table in tables.items() if _sees(table[metrics.AUC])]
        if seen:
            best, name = max(seen)
            return True, f"{name} reaches AUC {best:.3f} on {where}"
    return False, "no attack surely beats guessing, here or on a model known to leak"


def _claims(shown: Shown, subject: Subject, plan: Plan, found: Measures, control: Measures) -> list[Finding]:
    """Judge what is promised; an attack that finds nothing even on a leaky model cannot call a promise consistent."""
    findings = []
    sighted, sight = _sight(found, control)
    for code, title, promise in (
        (CLAIM, "Claimed epsilon", subject.claimed),
        (PROOF, "Proved epsilon", subject.proved),
    ):
        if promise is None or (isinstance(promise, Guarantee) and promise.epsilon == float("inf")):
            continue  # nothing finite is promised, so there is nothing to contradict
        if promise is subject.proved and _same(subject.claimed, promise):
            continue  # one statement, judged once
        if isinstance(promise, Unaccounted):
            findings.append(
                Finding(
                    code=code, status=Status.INFORMATION, title=title, more=MORE,
                    sentence=f"No epsilon can be proved for this run: {promise.reason}.",
                )
            )  # fmt: skip
            continue
        if shown.bound is None:
            findings.append(
                Finding(
                    code=code, status=Status.NOT_COMPARABLE, title=title, measure="epsilon", limit=promise.epsilon,
                    sentence=f"Epsilon {promise.epsilon:g} could not be tested: {shown.reason}.", more=MORE,
                )
            )  # fmt: skip
            continue
        judged = judge_claim(shown.bound, promise)
        if judged.status is Status.CONSISTENT and not sighted and plan.control.enabled:
            said = f"{judged.sentence} But {sight}: their silence says nothing."
            judged = replace(judged, status=Status.INCONCLUSIVE, sentence=said)
        findings.append(
            Finding(
                code=code,
                status=judged.status,
                title=title,
                sentence=judged.sentence,
                attack=shown.attack,
                measure="epsilon",
                limit=promise.epsilon,
                found=epsilon_estimate(shown),
                control_reason=sight,
                more=MORE,
            )
        )
    return findings


def _steps(implied: StepAudit, subject: Subject) -> list[Finding]:
    """Judge a promise by what single steps imply: a bound above it contradicts clipping or noise, not the run."""
    promises = (subject.proved, subject.claimed)
    promise = next((one for one in promises if isinstance(one, Guarantee) and one.epsilon < float("inf")), None)
    if promise is None:
        return []
    bound = implied.gaussian
    judged = judge_claim(bound, promise)
    return [
        Finding(
            code=STEP,
            status=judged.status,
            title="Clipping and noise of single steps",
            sentence=judged.sentence.replace("The attack", "Gradient canaries", 1).replace(" implies ", " imply ", 1),
            measure="epsilon",
            limit=promise.epsilon,
            found=Estimate(
                value=bound.lower, low=bound.lower, high=float("inf"), level=bound.confidence, method=bound.method,
                n=implied.trials, unit="trial",
            ),
            more=MORE,
        )
    ]  # fmt: skip


def _same(claimed: Guarantee | None, proved: Guarantee | Unaccounted) -> bool:
    """Say whether a proof restates the claim: the same terms, and epsilon up to what calibration leaves over."""
    return (
        claimed is not None
        and isinstance(proved, Guarantee)
        and (claimed.delta, claimed.neighboring, claimed.unit) == (proved.delta, proved.neighboring, proved.unit)
        and abs(claimed.epsilon - proved.epsilon) <= 0.01 * claimed.epsilon
    )


def epsilon_estimate(shown: Shown) -> Estimate | None:
    """Return the bound as a one-sided estimate: the true epsilon lies at or above `low`, nothing is known above it."""
    if shown.audit is None:
        return None
    bound = shown.audit.bound
    return Estimate(
        value=bound.lower,
        low=bound.lower,
        high=float("inf"),
        level=bound.confidence,
        method=bound.method,
        n=shown.audit.guesses,
        unit="guessed record",
    )


def _leak(
    entry: Evidence,
    chosen: Limit,
    found: Mapping[str, Estimate],
    control: Mapping[str, Estimate],
    subject: Subject,
    plan: Plan,
) -> Finding:
    estimate, baseline = found[chosen.measure], metrics.baseline_of(chosen.measure)
    other = control.get(chosen.measure)
    # An attack that surely beats guessing on the target itself has shown that it can see a leak there.
    sees = _sees(estimate, chosen.measure)
    judged = judge_leak(
        estimate,
        chosen.maximum,
        control=estimate if sees else other,
        baseline=baseline,
        control_required=plan.control.enabled,
        measure=chosen.measure,
    )
    return Finding(
        code=LEAK,
        status=judged.status,
        title=f"Membership leak, {entry.attack.title}",
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
