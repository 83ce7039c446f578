"""Short Markdown: a report's summary, fit for a comment on a pull request."""

import re

from reports.pages import wording
from reports.pages.reading_order import attacks_left_out, worst_first
from reports.records.report import BoundRecord, GuaranteeRecord, Report

PRIVATE_DATA_NOTICE = (
    "The audit itself read private training records. Publishing this report releases something about them, and no "
    "epsilon in it covers that."
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]#!|~<>&@$])")


def escape(text: str) -> str:
    """Make text stand for itself in Markdown, on one line: no markup, no HTML, no mention of anybody.

    Args:
        text: Any text of the record.

    Returns:
        The text with line breaks and control characters turned into spaces and every special character escaped.
    """
    one_line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    # An entity, not a backslash: readers that link @names do so before they look at backslashes.
    return _SPECIAL.sub(lambda found: "&#64;" if found[1] == "@" else f"\\{found[1]}", one_line)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table; cells stand for themselves, an empty one is a dash."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(" --- " for _ in head) + "|"]
    return lines + ["| " + " | ".join(escape(cell) or wording.DASH for cell in row) + " |" for row in rows]


def guarantee_in_words(guarantee: GuaranteeRecord | None, *, missing: str) -> str:
    """Write a guarantee as "epsilon at most 2.00 at delta 1e-5", or in words why there is none.

    Args:
        guarantee: The guarantee, or None.
        missing: What to say for None.

    Returns:
        One phrase.
    """
    if guarantee is None:
        return missing
    if guarantee.epsilon is None:
        return f"unaccounted: {guarantee.reason or 'no reason given'}"
    at = "" if guarantee.delta is None else f" at delta {wording.compact(guarantee.delta)}"
    if guarantee.epsilon == float("inf"):
        return "infinite: nothing is promised" + (f" ({guarantee.reason})" if guarantee.reason else "")
    return f"epsilon at most {wording.at_most(guarantee.epsilon)}{at}"


def bound_in_words(bound: BoundRecord | None, *, missing: str | None, ceiling: bool = True) -> str:
    """Write a shown bound, "epsilon at least 1.31 at delta 1e-5 (95% confidence), ceiling 5.77", or why there is none.

    Args:
        bound: The bound, or None.
        missing: The reason for None, where one is known.
        ceiling: Whether to name the ceiling.

    Returns:
        One phrase.
    """
    if bound is None:
        return f"nothing was shown: {missing}" if missing else "nothing was shown"
    said = (
        f"epsilon at least {wording.at_least(bound.lower)} at delta {wording.compact(bound.delta)} "
        f"({wording.exact_percent(bound.confidence)} confidence)"
    )
    return f"{said}, ceiling {wording.at_most(bound.ceiling)}" if ceiling else said


def summary(report: Report) -> str:
    """Write `summary.md`: verdict, findings worst first, the three epsilons, what did not run and what is not shown.

    Args:
        report: The record.

    Returns:
        Markdown text; the same record gives the same bytes.
    """
    subject = report.subject
    lines = [
        f"## Privacy audit: {wording.STATUS_WORDS[report.verdict]}",
        "",
        f"**{escape(report.headline)}**",
        "",
        wording.STATUS_MEANINGS[report.verdict],
        "",
        f"{escape(subject.title)}: {escape(subject.model)} ({escape(wording.short_digest(subject.model_digest))}), "
        f"trained on {escape(subject.data)} ({escape(wording.short_digest(subject.data_digest))}) "
        f"{escape(wording.scheme(subject.scheme))}; "
        f"{subject.members:,} members against {subject.nonmembers:,} non-members.",
        "",
    ]
    rows = [
        [
            wording.STATUS_WORDS[finding.status],
            f"{finding.title} ({finding.code})",
            wording.finding_limit(finding),
            wording.found(finding.found, finding.measure) if finding.found else wording.DASH,
            wording.count(finding.found.n, finding.found.unit) if finding.found else wording.DASH,
            wording.control(finding),
        ]
        for finding in worst_first(report.findings)
    ]
    lines += table(["Status", "Finding", "Limit", "Found", "n", "On a model known to leak"], rows)
    epsilons = report.epsilons
    lines += [
        "",
        f"- Claimed: {escape(guarantee_in_words(epsilons.claimed, missing='nothing is claimed'))}",
        f"- Proved: {escape(guarantee_in_words(epsilons.proved, missing='nothing was computed'))}",
        f"- Shown: {escape(bound_in_words(epsilons.shown, missing=epsilons.shown_reason))}",
    ]
    if epsilons.implied is not None:
        lines.append(f"- Implied by single steps: {escape(bound_in_words(epsilons.implied, missing=None))}")
    left_out = attacks_left_out(report)
    if left_out:
        lines += ["", "Did not run:", ""]
        lines += [f"- {escape(attack.title)}: {escape(attack.reason or 'no reason given')}" for attack in left_out]
    if report.blind_spots:
        lines += ["", "What this audit does not show:", ""]
        lines += [f"- {escape(spot)}" for spot in report.blind_spots]
    if report.trusted:
        lines += ["", "What this audit takes on trust:", ""]
        lines += [f"- {escape(wording.trusted(one))}" for one in report.trusted]
    return "\n".join([*lines, "", PRIVATE_DATA_NOTICE, ""])
