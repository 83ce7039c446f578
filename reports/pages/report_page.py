"""A report as one HTML file that needs nothing else: no script, no network, figures inside."""

import math
from collections import Counter
from collections.abc import Sequence

from reports.measures import EPSILON
from reports.pages import figures, markdown, wording
from reports.pages.page import fill
from reports.pages.reading_order import attacks_in_order, attacks_left_out, carrying_finding, worst_first
from reports.pages.toml_text import toml_text
from reports.records.gallery import GalleryItem
from reports.records.report import Report


def render(report: Report) -> str:
    """Write `report.html`.

    Args:
        report: The record.

    Returns:
        The whole file as text; the same record gives the same bytes. Everything from the record is escaped, and the
        content security policy allows nothing but the one style sheet and images that are in the file.
    """
    finding = carrying_finding(report)
    roc = figures.roc(report)
    has_epsilon = _has_epsilon(report)
    attacks = attacks_in_order(report)
    return fill(
        "report.html.jinja",
        report=report,
        subject=report.subject,
        provenance=report.provenance,
        findings=worst_first(report.findings),
        tally=_tally(report),
        roc_figure=roc,
        band=next((attack.roc for attack in attacks if attack.roc is not None), None),
        epsilon_figure=figures.epsilon(report) if has_epsilon else None,
        lead_is_epsilon=has_epsilon and finding is not None and finding.measure == EPSILON,
        guarantees=[
            ("Claimed", report.epsilons.claimed, "nothing is claimed"),
            ("Proved", report.epsilons.proved, "nothing was computed"),
        ],
        bounds=[
            ("Shown", report.epsilons.shown),
            *([("Implied by steps", report.epsilons.implied)] if report.epsilons.implied else []),
        ],
        ran=[(attack, figures.histogram(attack)) for attack in attacks],
        left_out=attacks_left_out(report),
        plan=toml_text(report.provenance.plan),
        gallery=_by_attack(report.gallery),
        private_gallery=sum(not item.synthetic for item in report.gallery),
        notice=markdown.PRIVATE_DATA_NOTICE,
        dash=wording.DASH,
    )


def _by_attack(gallery: Sequence[GalleryItem]) -> dict[str, list[GalleryItem]]:
    found: dict[str, list[GalleryItem]] = {}
    for item in gallery:
        found.setdefault(item.attack, []).append(item)
    return found


def _has_epsilon(report: Report) -> bool:
    """Whether there is a number to draw; three phrases alone are better read in the table."""
    promises = (report.epsilons.claimed, report.epsilons.proved)
    finite = [promise for promise in promises if promise and promise.epsilon is not None and promise.epsilon < math.inf]
    return bool(finite) or report.epsilons.shown is not None


def _tally(report: Report) -> str:
    counts = Counter(finding.status for finding in worst_first(report.findings))
    if len(report.findings) < 2:
        return ""
    each = ", ".join(f"{wording.STATUS_WORDS[status].lower()} ({number})" for status, number in counts.items())
    return f"All findings: {each}."
