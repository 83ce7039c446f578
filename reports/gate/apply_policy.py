"""Hold a report against a policy: rules on intervals, never on point estimates, and an exit code.

A rule fails if the lower confidence limit is above its maximum, passes if the upper limit is at or below it, and is
inconclusive otherwise. Nothing heavy is imported here: a CI job waits for this.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from reports.exit_codes import ExitCode, worst
from reports.gate.baseline import increase_row
from reports.gate.gate_result import EXIT_CODES, GateResult, Outcome, Row
from reports.gate.policy import Policy, Rule, parse_policy
from reports.gate.to_junit import to_junit
from reports.gate.to_markdown import to_markdown
from reports.gate.to_sarif import to_sarif
from reports.measures import EPSILON, KNOWN_NAMES, measure
from reports.pages import wording
from reports.records.grounds import GROUNDS
from reports.records.report import AttackResult, AttackStatus, Estimate, Finding, Report, Status
from reports.suggestions import nearest

__all__ = ["GateResult", "Policy", "Rule", "apply_policy", "parse_policy", "to_junit", "to_markdown", "to_sarif"]

_CLAIM_OUTCOMES = {
    Status.VIOLATED: Outcome.FAIL,
    Status.CONSISTENT: Outcome.PASS,
    Status.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    Status.NOT_COMPARABLE: Outcome.INCONCLUSIVE,
    Status.ERROR: Outcome.INCOMPLETE,
}

_HEADS = {
    ExitCode.PASS: "Pass",
    ExitCode.EXCEEDED: "Fail",
    ExitCode.USAGE: "The policy does not fit the report",
    ExitCode.INCONCLUSIVE: "Inconclusive",
    ExitCode.INCOMPLETE: "The audit is incomplete",
    ExitCode.NOT_COMPARABLE: "The baseline cannot be compared",
}


def apply_policy(report: Report, policy: Policy, baseline: Report | None = None) -> GateResult:
    """Decide whether a report satisfies a policy.

    Args:
        report: The audit to judge.
        policy: What it must satisfy.
        baseline: An earlier audit on the same data; needed by rules with `maximum_increase` only.

    Returns:
        The decision. Its exit code is 0 only if every check passed, or was inconclusive where the policy lets that
        through (doubt about who was a member it never does); 1 a limit is exceeded or a claim contradicted; 2 the
        policy does not fit; 3 inconclusive; 4 an attack failed or a required one did not run; 5 the baseline cannot be
        compared. Where several hold: 2, 5, 1, 4, 3.
    """
    rows = [row for rule in policy.rules for row in _rule_rows(rule, report, policy=policy, baseline=baseline)]
    rows += _claim_rows(report, policy)
    rows += _attack_rows(report, policy)
    if policy.allow_inconclusive:
        rows = [_tolerate(row) if row.outcome is Outcome.INCONCLUSIVE else row for row in rows]
    rows += _ground_rows(report)  # where the truth itself is in doubt, no policy lets that through
    rows.sort(key=lambda row: (row.tolerated, EXIT_CODES[row.outcome].precedence))
    code = worst(row.exit_code for row in rows)
    compares = any(rule.maximum_increase is not None for rule in policy.rules)
    note = "" if baseline is None or compares else " The baseline was not used: no rule has maximum_increase."
    return GateResult(exit_code=code, rows=tuple(rows), sentence=_sentence(code, rows) + note)


def _tolerate(row: Row) -> Row:
    return replace(row, tolerated=True)


def _sentence(code: ExitCode, rows: list[Row]) -> str:
    if code is ExitCode.PASS:
        passed = sum(row.outcome is Outcome.PASS for row in rows)
        let_through = len(rows) - passed
        said = f"Pass: {passed} of {len(rows)} checks hold."
        return said + (f" {let_through} inconclusive, let through." if let_through else "")
    deciding = [row for row in rows if row.exit_code is code]
    more = f" ({len(deciding)} of {len(rows)} checks; the first is named)" if len(deciding) > 1 else ""
    return f"{_HEADS[code]}{more}: {deciding[0].sentence}"


def _rule_rows(rule: Rule, report: Report, *, policy: Policy, baseline: Report | None) -> Iterator[Row]:
    if rule.measure == EPSILON:
        row = _claims_rule(rule, report) if rule.maximum == "claims" else _epsilon_rule(rule, report)
        yield _with_control(row, report, policy)
        return
    attacks = [attack for attack in report.attacks if rule.measure in attack.measures]
    if rule.attack is not None:
        attacks = [attack for attack in attacks if attack.name == rule.attack]
    attacks = [attack for attack in attacks if attack.status is AttackStatus.RAN]
    attacks.sort(key=lambda attack: -_low(attack.measures[rule.measure]))
    if not attacks:
        yield _unmeasured(rule, report)
    if isinstance(rule.maximum, float):
        yield from _carried([_maximum_row(rule, attack, rule.maximum) for attack in attacks], report, policy)
    if rule.maximum_increase is not None:
        grown = [increase_row(rule, attack, report=report, baseline=baseline) for attack in attacks]
        yield from _carried(grown, report, policy)


def _carried(rows: list[Row], report: Report, policy: Policy) -> Iterator[Row]:
    """Ask for controls; the silence of an attack that cannot see a leak decides nothing where another one can."""
    checked = [_with_control(row, report, policy) for row in rows]
    seen = any(row.outcome is Outcome.PASS for row in checked)
    for before, after in zip(rows, checked, strict=True):
        silent = before.outcome is Outcome.PASS and after.outcome is Outcome.INCONCLUSIVE
        if silent and seen:
            yield replace(after, sentence=f"{after.sentence} Another attack carries this rule.", tolerated=True)
        else:
            yield after


def _low(estimate: Estimate) -> float:
    return -math.inf if estimate.low is None else estimate.low


def _maximum_row(rule: Rule, attack: AttackResult, maximum: float) -> Row:
    estimate = attack.measures[rule.measure]
    written = wording.limit(maximum, rule.measure)
    if estimate.low is not None and estimate.low > maximum:
        outcome, why = Outcome.FAIL, f"all of the interval is above the maximum of {written}"
    elif estimate.high is not None and estimate.high <= maximum:
        outcome, why = Outcome.PASS, f"all of the interval is at or below the maximum of {written}"
    elif estimate.low is None or estimate.high is None:
        outcome, why = Outcome.INCONCLUSIVE, f"without an interval the maximum of {written} cannot be checked"
    else:
        outcome, why = Outcome.INCONCLUSIVE, f"the interval straddles the maximum of {written}"
    said = f"{attack.title}: {measure(rule.measure).title}: {wording.found(estimate, rule.measure)}; {why}."
    return Row(
        rule=rule.name,
        outcome=outcome,
        sentence=said,
        attack=attack.name,
        measure=rule.measure,
        limit=written,
        found=estimate,
    )


def _epsilon_rule(rule: Rule, report: Report) -> Row:
    """Hold the shown lower bound against a number: it can exceed it, or fail to although it could have."""
    assert isinstance(rule.maximum, float)  # the policy refuses anything else
    shown = report.epsilons.shown
    written = wording.limit(rule.maximum, EPSILON)
    if shown is None or (rule.attack is not None and shown.attack != rule.attack):
        why = report.epsilons.shown_reason if shown is None else f"it was shown by {shown.attack}, not {rule.attack}"
        said = f"No epsilon was shown ({why or 'no reason given'}), so the maximum of {written} cannot be checked."
        return Row(rule=rule.name, outcome=Outcome.INCONCLUSIVE, sentence=said, measure=EPSILON, limit=written)
    said = f"Epsilon is at least {wording.at_least(shown.lower)} at delta {wording.compact(shown.delta)} "
    said += f"({wording.exact_percent(shown.confidence)} confidence)"
    if shown.kind.lower() == "implied":
        outcome, why = (
            Outcome.INCONCLUSIVE,
            f"an implied bound speaks of one step, not of the maximum of {written}",
        )
    elif shown.lower > rule.maximum:
        outcome, why = Outcome.FAIL, f"above the maximum of {written}"
    elif shown.ceiling <= rule.maximum:
        outcome = Outcome.INCONCLUSIVE
        why = (
            f"no more than {wording.at_most(shown.ceiling)} could ever have shown here, below the maximum of {written}"
        )
    else:
        outcome, why = Outcome.PASS, f"not above the maximum of {written}, though up to "
        why += f"{wording.at_most(shown.ceiling)} could have shown"
    estimate = Estimate(
        value=shown.lower,
        low=shown.lower,
        level=shown.confidence,
        method=shown.method,
        n=shown.canaries,
        unit="canary",
    )
    return Row(
        rule=rule.name,
        outcome=outcome,
        sentence=f"{said}: {why}.",
        attack=shown.attack,
        measure=EPSILON,
        limit=written,
        found=estimate,
    )


def _about_claims(report: Report, attack: str | None = None) -> list[Finding]:
    judged = [
        finding for finding in report.findings if finding.measure == EPSILON and finding.status in _CLAIM_OUTCOMES
    ]
    judged += [finding for finding in report.findings if finding.status is Status.VIOLATED and finding not in judged]
    return [finding for finding in judged if attack is None or finding.attack == attack]


def _claims_rule(rule: Rule, report: Report) -> Row:
    judged = _about_claims(report, rule.attack)
    if not judged:
        said = "No finding of the report judges a claim, so none could be checked."
        return Row(rule=rule.name, outcome=Outcome.INCONCLUSIVE, sentence=said, measure=EPSILON, limit="claims")
    worst_one = min(judged, key=lambda finding: EXIT_CODES[_CLAIM_OUTCOMES[finding.status]].precedence)
    return Row(
        rule=rule.name,
        outcome=_CLAIM_OUTCOMES[worst_one.status],
        sentence=worst_one.sentence,
        attack=worst_one.attack,
        measure=EPSILON,
        limit="claims",
        found=worst_one.found,
    )


def _claim_rows(report: Report, policy: Policy) -> Iterator[Row]:
    asked = any(rule.maximum == "claims" and rule.attack is None for rule in policy.rules)
    judged = _about_claims(report)
    if asked or not policy.fail_on_claims or not judged:
        return
    violated = [finding for finding in judged if finding.status is Status.VIOLATED]
    for finding in violated:
        yield Row(
            rule="claims",
            outcome=Outcome.FAIL,
            sentence=finding.sentence,
            attack=finding.attack,
            measure=finding.measure,
            limit=wording.finding_limit(finding),
            found=finding.found,
        )
    if not violated:
        said = "No finding contradicts a claim; an audit can refute a claim, it cannot prove one."
        yield Row(rule="claims", outcome=Outcome.PASS, sentence=said)


def _attack_rows(report: Report, policy: Policy) -> Iterator[Row]:
    named = {attack.name for attack in report.attacks}
    for attack in report.attacks:
        required = attack.required or attack.name in policy.required_attacks
        if attack.status is AttackStatus.FAILED or (attack.status is AttackStatus.NOT_APPLICABLE and required):
            happened = "failed" if attack.status is AttackStatus.FAILED else "did not run, though it is required"
            said = f"{attack.title} {happened}: {attack.reason or 'no reason given'}."
            yield Row(rule="attacks", outcome=Outcome.INCOMPLETE, sentence=said, attack=attack.name)
        elif attack.status is AttackStatus.RAN and attack.name in policy.required_attacks:
            said = f"{attack.title} ran, as required."
            yield Row(rule="attacks", outcome=Outcome.PASS, sentence=said, attack=attack.name)
    for missing in dict.fromkeys(policy.required_attacks):
        if missing not in named:
            said = f"Required attack {missing!r} is not in the report{nearest(missing, sorted(named))}"
            yield Row(rule="attacks", outcome=Outcome.INCOMPLETE, sentence=said, attack=missing)
    for finding in report.findings:
        if finding.status is Status.ERROR and finding.measure != EPSILON and finding.attack not in named:
            yield Row(rule="attacks", outcome=Outcome.INCOMPLETE, sentence=finding.sentence, attack=finding.attack)


def _ground_rows(report: Report) -> Iterator[Row]:
    """Refuse to pass a report that doubts who was a member: every figure that a rule looks at rests on it."""
    for finding in report.findings:
        if finding.code in GROUNDS and finding.counts:
            yield Row(rule="grounds", outcome=Outcome.INCONCLUSIVE, sentence=finding.sentence, found=finding.found)


def _unmeasured(rule: Rule, report: Report) -> Row:
    """Say why nothing could be held against a rule; a typing error is told apart from an audit that measured less."""
    names = sorted({attack.name for attack in report.attacks})
    measured = sorted({name for attack in report.attacks for name in attack.measures})
    if rule.attack is not None and rule.attack not in names:
        outcome = Outcome.INCOMPLETE
        said = f"Attack {rule.attack!r} is not in the report{nearest(rule.attack, names)}"
    elif rule.measure not in measured and not measure(rule.measure).known:
        outcome = Outcome.MISFIT
        said = f"No attack has a measure {rule.measure!r}{nearest(rule.measure, [*measured, *KNOWN_NAMES])}"
    else:
        outcome = Outcome.INCOMPLETE
        who = "No attack that ran" if rule.attack is None else f"Attack {rule.attack!r} did not run or"
        said = f"{who} measured {rule.measure}, so its limit could not be checked."
    return Row(rule=rule.name, outcome=outcome, sentence=said, attack=rule.attack, measure=rule.measure)


def _with_control(row: Row, report: Report, policy: Policy) -> Row:
    """Turn a pass into an inconclusive row where the attack never showed that it can find a leak."""
    if row.outcome is not Outcome.PASS or row.measure is None:
        return row
    about = measure(row.measure)
    if not policy.require_control and (about.baseline is not None or not about.known):
        return row  # waived; but where it is not known what guessing reaches, a figure alone shows nothing
    maximum = next((rule.maximum for rule in policy.rules if rule.name == row.rule), None)
    gap = _control_gap(row, report, maximum if isinstance(maximum, float) else None)
    if gap is None:
        return row
    said = f"{row.sentence} But {gap}, so its silence says nothing."
    return replace(row, outcome=Outcome.INCONCLUSIVE, sentence=said)


def _control_gap(row: Row, report: Report, maximum: float | None) -> str | None:
    """Say why the attack behind a row was not seen to find a leak; None if it was."""
    shown = report.epsilons.shown
    behind = shown.attack if row.attack is None and row.measure == EPSILON and shown is not None else row.attack
    attack = next((attack for attack in report.attacks if attack.name == behind), None)
    if attack is None or row.measure is None:
        return "no attack with a control stands behind it"
    own = attack.measures.get(row.measure)
    if own is not None and _beats(row.measure, own):
        return None  # it finds a leak here, if one within the limit: it has shown what it can do
    control = dict(attack.control)
    if row.measure == EPSILON and EPSILON not in control:
        # Where the control was not priced in epsilon, any measure tells whether the same attack finds a known leak.
        if any(_beats(name, estimate) for name, estimate in (*control.items(), *attack.measures.items())):
            return None
        return f"{attack.title} was not shown to beat guessing on a model that is known to leak"
    estimate = control.get(row.measure)
    if estimate is None:
        return f"{attack.title} has no control of this measure on a model that is known to leak"
    if not measure(row.measure).known:
        return f"nothing is known of what guessing gets on {row.measure}"
    if measure(row.measure).baseline is None:
        if maximum is not None and estimate.low is not None and estimate.low > maximum:
            return None  # more than the limit on a model that is known to leak
        return (
            f"what guessing gets on {row.measure} is not known, and {attack.title} did not surely find more than the "
            "limit on a model that is known to leak"
        )
    if not _beats(row.measure, estimate):
        got = wording.found(estimate, row.measure)
        return f"{attack.title} did not beat guessing on a model that is known to leak ({got})"
    return None


def _beats(name: str, estimate: Estimate) -> bool:
    """Whether the control's lower limit is above what an attack that knows nothing gets."""
    baseline = measure(name).baseline
    return baseline is not None and estimate.low is not None and estimate.low > baseline
