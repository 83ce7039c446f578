"""An experiment done again as a page and as Markdown: every figure of the paper beside ours."""

from reports.pages import charts, markdown, wording
from reports.pages.page import fill
from reports.records.reproduction import Outcome, Reproduction, Row

_TONES = {
    Outcome.REPRODUCED: "fine",
    Outcome.NOT_REPRODUCED: "bad",
    Outcome.NOT_COMPARABLE: "warn",
    Outcome.OURS_ALONE: "note",
}


def render_reproduction(found: Reproduction) -> str:
    """Write `reproduction.html`: a pure function of the record.

    Args:
        found: The record.
    """
    return fill(
        "reproduction.html.jinja",
        found=found,
        headline=headline(found),
        scale=scale_in_words(found),
        rows=[
            (row, _note(row), paper_in_words(row), *ours_in_parts(row), tolerance_in_words(row), _TONES[row.outcome])
            for row in found.rows
        ],
        charts=[(one.title, charts.chart(one)) for one in found.charts],
    )


def headline(found: Reproduction) -> str:
    """Return how many comparisons came out, in one sentence; one figure of a paper may be held against several."""
    stated = [row for row in found.rows if row.paper is not None]
    came = sum(row.outcome is Outcome.REPRODUCED for row in stated)
    failed = sum(row.outcome is Outcome.NOT_REPRODUCED for row in stated)
    other = len(stated) - came - failed
    apart = f", and {other} cannot be made" if other else ""
    return f"Of {len(stated)} comparisons with what the paper states, {came} came out, {failed} did not{apart}."


def scale_in_words(found: Reproduction) -> str:
    """Return at what size it ran; the full one is the paper's own where it states one."""
    return "full size" if found.scale == 1 else f"{wording.exact_percent(found.scale)} of the full size"


def paper_in_words(row: Row) -> str:
    """Return the paper's figure as it prints it."""
    if row.paper is None:
        return wording.DASH
    return f"at most {row.paper:g}" if row.at_most else f"{row.paper:g}"


def ours_in_parts(row: Row) -> tuple[str, str]:
    """Return our figure, and apart from it its interval, empty where there is none; a note has why there is neither."""
    ours = row.ours
    if ours is None or ours.value is None:
        return "not measured" if ours is None else "none", ""
    sure = wording.confidence(ours.level)
    if ours.low is None or ours.high is None:
        if ours.low != ours.value or ours.high is not None:
            return _digits(ours.value), ""
        return f"at least {wording.at_least(ours.value)}", sure.replace("CI", "confidence")
    return _digits(ours.value), f"{sure} {_digits(ours.low)} to {_digits(ours.high)}"


def ours_in_words(row: Row) -> str:
    """Return our figure with its interval."""
    value, between = ours_in_parts(row)
    return f"{value} ({between})" if between else value


def _note(row: Row) -> str:
    """Return what to know about a row, and why we have no figure."""
    reason = None if row.ours is None else row.ours.reason
    return "; ".join(said for said in (row.note, reason) if said)


def _outcome(row: Row) -> str:
    allowed = tolerance_in_words(row)
    return f"{row.outcome}, {allowed}" if allowed else str(row.outcome)


def tolerance_in_words(row: Row) -> str:
    """Return what was allowed between the two, empty where nothing was."""
    if row.tolerance is None or (row.at_most and row.tolerance == 0):
        return ""
    return f"tolerance {row.tolerance:g}"


def _digits(value: float) -> str:
    """Write four digits that matter, and large numbers in full."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else wording.compact(float(f"{value:.4g}"))


def reproduction_markdown(found: Reproduction) -> str:
    """Write the table "paper / ours" as Markdown."""
    head = ["Figure", "Setting", "Paper", "Ours", "Outcome", "Note"]
    rows = [
        [row.what, row.setting, paper_in_words(row), ours_in_words(row), _outcome(row), _note(row)]
        for row in found.rows
    ]
    lines = [f"# {found.paper}: {markdown.escape(found.title)}", "", headline(found), ""]
    lines += [f"Run at {scale_in_words(found)}: {markdown.escape(found.setting)}", "", *markdown.table(head, rows)]
    for title, said in (("What had to be chosen", found.choices), ("What was tried", found.tried)):
        lines += ["", f"## {title}", "", *(f"- {markdown.escape(sentence)}" for sentence in said)] if said else []
    return "\n".join([*lines, ""])
