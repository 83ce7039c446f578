"""A gate's decision as Markdown, fit for a comment on a pull request."""

from reports.gate.gate_result import GateResult
from reports.pages import wording
from reports.pages.markdown import escape, table


def to_markdown(result: GateResult) -> str:
    """Write a gate's decision as Markdown.

    Args:
        result: The decision of `reports.gate.apply_policy.apply_policy`.

    Returns:
        Markdown text; the same result gives the same bytes.
    """
    rows = [
        [
            f"{row.outcome.value} (let through)" if row.tolerated else row.outcome.value,
            row.label,
            row.limit,
            wording.found(row.found, row.measure) if row.found else "",
            row.sentence,
        ]
        for row in result.rows
    ]
    lines = table(["Outcome", "Check", "Limit", "Found", "Why"], rows)
    return "\n".join(["## Privacy gate", "", f"**{escape(result.sentence)}**", "", *lines, ""])
