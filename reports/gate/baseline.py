"""Growth of a leak over an earlier report: compared on intervals, or refused where the two do not compare."""

from reports.gate.gate_result import Outcome, Row
from reports.gate.policy import Rule
from reports.measures import measure
from reports.pages import wording
from reports.records.report import AttackResult, AttackStatus, Estimate, Report


def increase_row(rule: Rule, attack: AttackResult, *, report: Report, baseline: Report | None) -> Row:
    """Hold the growth of one measure of one attack against `rule.maximum_increase`.

    Args:
        rule: A rule with `maximum_increase`.
        attack: The attack of the new report, which has the rule's measure.
        report: The new report.
        baseline: The earlier report, or None where none was given.

    Returns:
        FAIL if even the smallest growth that both intervals allow is above the maximum, PASS if the largest is at or
        below it, INCONCLUSIVE otherwise; NOT_COMPARABLE where the reports do not compare; MISFIT without a baseline.
    """
    assert rule.maximum_increase is not None  # the caller asks for rules that have one
    estimate = attack.measures[rule.measure]
    written = f"+{wording.limit(rule.maximum_increase, rule.measure)}"

    def row(outcome: Outcome, sentence: str) -> Row:
        return Row(
            rule=rule.name,
            outcome=outcome,
            sentence=sentence,
            attack=attack.name,
            measure=rule.measure,
            limit=written,
            found=estimate,
        )

    if baseline is None:
        return row(
            Outcome.MISFIT, f"The rule {rule.name!r} limits an increase; give a baseline report to compare with."
        )
    earlier = _earlier(rule, attack, baseline)
    reason = _obstacle(earlier, estimate, report=report, baseline=baseline)
    if reason is not None or earlier is None:
        return row(Outcome.NOT_COMPARABLE, f"{attack.title}, {rule.measure}: {reason}.")
    if estimate.low is None or estimate.high is None or earlier.low is None or earlier.high is None:
        return row(Outcome.INCONCLUSIVE, f"{attack.title}, {rule.measure}: there is no interval to compare.")
    # Rounded so that 0.05 after 0.03 is an increase of 0.02, and not of 0.020000000000000004.
    least, most = round(estimate.low - earlier.high, 12), round(estimate.high - earlier.low, 12)
    if least > rule.maximum_increase:
        outcome, verdict = Outcome.FAIL, "above"
    elif most <= rule.maximum_increase:
        outcome, verdict = Outcome.PASS, "at or below"
    else:
        outcome, verdict = Outcome.INCONCLUSIVE, "on both sides of"
    between = f"{wording.amount(least, rule.measure)} and {wording.amount(most, rule.measure)}"
    said = f"{attack.title}: {measure(rule.measure).title} changed by between {between} since the baseline, "
    return row(outcome, f"{said}{verdict} the maximum increase of {written}.")


def _earlier(rule: Rule, attack: AttackResult, baseline: Report) -> Estimate | None:
    ran = [earlier for earlier in baseline.attacks if earlier.status is AttackStatus.RAN]
    return next((earlier.measures.get(rule.measure) for earlier in ran if earlier.name == attack.name), None)


def _obstacle(earlier: Estimate | None, estimate: Estimate, *, report: Report, baseline: Report) -> str | None:
    """Say why the two do not compare, or None if they do."""
    versions = baseline.schema_version, report.schema_version
    if versions[0].split(".")[0] != versions[1].split(".")[0]:
        return f"the baseline has schema version {versions[0]}, the report {versions[1]}"
    if baseline.subject.data_digest != report.subject.data_digest:
        return (
            f"the baseline is about other data ({wording.short_digest(baseline.subject.data_digest)}, "
            f"not {wording.short_digest(report.subject.data_digest)}), or was audited by another user, whose key "
            "makes other digests"
        )
    if earlier is None:
        return "the baseline does not have this attack and measure"
    if earlier.low is None or earlier.high is None:
        return f"the baseline has no interval ({earlier.reason or earlier.method})"
    if estimate.level is not None and earlier.level != estimate.level:
        was = "not stated" if earlier.level is None else wording.exact_percent(earlier.level)
        return f"the baseline's confidence level is {was}, the report's {wording.exact_percent(estimate.level)}"
    if earlier.unit != estimate.unit:
        return f"the baseline counts by {earlier.unit}, the report by {estimate.unit}"
    return None
