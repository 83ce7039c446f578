"""How a report is read: the order of its findings, and which finding and attack carry the verdict."""

from collections.abc import Iterable, Mapping

from reports.measures import EPSILON, measure
from reports.records.report import AttackResult, AttackStatus, Estimate, Finding, Report


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by status, the worst first and those that decide nothing last; equal ones keep their order."""
    return sorted(findings, key=lambda finding: (not finding.counts, finding.status.severity))


def carrying_finding(report: Report) -> Finding | None:
    """Return the finding that carries the verdict, or None where nothing was found.

    Args:
        report: The record.

    Returns:
        The first finding that has the report's verdict and says what was measured, else the first with that verdict,
        else the worst one.
    """
    ordered = worst_first(report.findings)
    agreeing = [finding for finding in ordered if finding.status is report.verdict]
    measured = [finding for finding in agreeing if finding.measure is not None]
    return next(iter([*measured, *agreeing, *ordered]), None)


def carrying_attack(report: Report) -> AttackResult | None:
    """Return the attack behind the verdict, else behind the next worst finding, else the first that ran.

    Args:
        report: The record.

    Returns:
        An attack that ran, or None where none did.
    """
    first = carrying_finding(report)
    shown = report.epsilons.shown
    wanted = []
    for finding in [*([first] if first else []), *worst_first(report.findings)]:
        epsilon_of = shown.attack if finding.measure == EPSILON and shown is not None else None
        wanted.append(finding.attack or epsilon_of)
    ran = [attack for attack in report.attacks if attack.status is AttackStatus.RAN]
    named = [attack for name in wanted for attack in ran if attack.name == name]
    return next(iter([*named, *ran]), None)


def attacks_in_order(report: Report) -> list[AttackResult]:
    """Return the attacks that ran, the one behind the verdict first, the others in the record's order."""
    first = carrying_attack(report)
    ran = [attack for attack in report.attacks if attack.status is AttackStatus.RAN]
    return sorted(ran, key=lambda attack: attack is not first)


def attacks_left_out(report: Report) -> list[AttackResult]:
    """Return the attacks that failed, then those that were not applicable."""
    order = (AttackStatus.FAILED, AttackStatus.NOT_APPLICABLE)
    return [attack for status in order for attack in report.attacks if attack.status is status]


def measures_in_order(measures: Mapping[str, Estimate]) -> list[tuple[str, Estimate]]:
    """Return measures in reading order: members found at few false alarms, AUC, advantage, the others by name."""
    ranks = {"auc": 1, "advantage": 2}

    def place(name: str) -> tuple[int, float, str]:
        at = measure(name).fpr
        return (0, -at, name) if at is not None else (ranks.get(name, 3), 0.0, name)

    return sorted(measures.items(), key=lambda item: place(item[0]))
