"""An experiment done again as a page and as Markdown: every figure of the paper beside ours."""

from reports import charts, markdown, wording
from reports.page import fill
from reports.reproduction import Outcome, Reproduction, Row

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
        rows=[(row, paper_in_words(row), ours_in_words(row), _TONES[row.outcome]) for row in found.rows],
        charts=[(one.title, charts.chart(one)) for one in found.charts],
    )


def headline(found: Reproduction) -> str:
    """Return how many figures came out, in one sentence."""
    stated = [row for row in found.rows if row.paper is not None]
    came = sum(row.outcome is Outcome.REPRODUCED for row in stated)
    failed = sum(row.outcome is Outcome.NOT_REPRODUCED for row in stated)
    other = len(stated) - came - failed
    apart = f", and {other} cannot be compared" if other else ""
    return f"Of {len(stated)} figures that the paper states, {came} came out here, {failed} did not{apart}."


def scale_in_words(found: Reproduction) -> str:
    """Return at what size it ran."""
    return "the paper's own size" if found.scale == 1 else f"{wording.exact_percent(found.scale)} of the paper's size"


def paper_in_words(row: Row) -> str:
    """Return the paper's figure as it prints it."""
    return wording.DASH if row.paper is None else f"{row.paper:g}"


def ours_in_words(row: Row) -> str:
    """Return our figure with its interval."""
    if row.ours is None or row.ours.value is None:
        return "not measured"
    between = f" ({row.ours.low:.4g} to {row.ours.high:.4g})" if row.ours.low is not None and row.ours.high else ""
    return f"{row.ours.value:.4g}{between}"


def reproduction_markdown(found: Reproduction) -> str:
    """Write the table "paper / ours" as Markdown."""
    head = ["Figure", "Setting", "Paper", "Ours", "", "Note"]
    rows = [
        [row.what, row.setting, paper_in_words(row), ours_in_words(row), str(row.outcome), row.note]
        for row in found.rows
    ]
    lines = [f"# {found.paper}: {markdown.escape(found.title)}", "", headline(found), ""]
    lines += [f"Run at {scale_in_words(found)}: {markdown.escape(found.setting)}", "", *markdown.table(head, rows)]
    for title, said in (("What had to be chosen", found.choices), ("What was tried", found.tried)):
        lines += ["", f"## {title}", "", *(f"- {markdown.escape(sentence)}" for sentence in said)] if said else []
    return "\n".join([*lines, ""])
