"""A comparison as a page and as Markdown: one figure, one table, every contradiction in words."""

from reports.pages import charts, markdown, wording
from reports.pages.page import fill
from reports.pages.toml_text import toml_text
from reports.records.comparison import ComparedRun, Comparison, Place, place_of

_TONES = {
    Place.CONTRADICTED: "bad",
    Place.HOLDS: "fine",
    Place.UNTESTED: "warn",
    Place.NOTHING: "note",
    Place.FAILED: "warn",
}


def render_comparison(comparison: Comparison) -> str:
    """Write `comparison.html`: a pure function of the record.

    Args:
        comparison: The record.
    """
    return fill(
        "comparison.html.jinja",
        comparison=comparison,
        headline=headline(comparison),
        tone="bad" if comparison.contradictions else "fine",
        figure=charts.three_epsilons(comparison),
        rows=[(run, place_of(run), _TONES[place_of(run)]) for run in comparison.runs],
        assumptions=_assumptions(comparison),
        plan=toml_text(comparison.plan),
        notice=markdown.PRIVATE_DATA_NOTICE,
        dash=wording.DASH,
    )


def headline(comparison: Comparison) -> str:
    """Return the conclusion in one sentence with its numbers."""
    wrong = list({run.name: run for run, _ in comparison.contradictions}.values())
    total = len(comparison.runs)
    if not wrong:
        tested = sum(place_of(run) is Place.HOLDS for run in comparison.runs)
        return f"Nothing that is promised was contradicted in {total} runs; {tested} of them could have been."
    run, found = comparison.contradictions[0]
    low = None if found.found is None else found.found.low
    said = ""
    if low is not None and found.limit is not None:
        said = f": for {run.name}, epsilon is at least {wording.at_least(low)} where {wording.at_most(found.limit)} is"
        said += " promised"
    return f"{len(wrong)} of {total} runs contradict what is promised of them{said}."


def comparison_markdown(comparison: Comparison) -> str:
    """Write the table and the contradictions as short Markdown."""
    head = ["Scheme", "Claimed", "Proved", "Shown", "Ceiling", "Implied by steps", "Accuracy", "Seconds", ""]
    rows = [[run.name, *_cells(run), str(place_of(run))] for run in comparison.runs]
    lines = [f"# {markdown.escape(comparison.title)}", "", headline(comparison), "", *markdown.table(head, rows), ""]
    for run, found in comparison.contradictions:
        lines += [f"- **{markdown.escape(run.name)}**: {markdown.escape(found.sentence)}"]
    return "\n".join([*lines, "", markdown.PRIVATE_DATA_NOTICE, ""])


def _cells(run: ComparedRun) -> list[str]:
    if run.epsilons is None:
        return ["", "", f"did not run: {run.reason}", "", "", "", f"{run.seconds:.0f}"]
    epsilons = run.epsilons
    claimed = epsilons.claimed.epsilon if epsilons.claimed else None
    proved = epsilons.proved
    shown, accuracy = epsilons.shown, run.accuracy_holdout
    return [
        "" if claimed is None else wording.at_most(claimed),
        "" if proved is None else "unaccounted" if proved.epsilon is None else wording.at_most(proved.epsilon),
        (epsilons.shown_reason or "") if shown is None else wording.at_least(shown.lower),
        "" if shown is None else wording.at_most(shown.ceiling),
        "" if epsilons.implied is None else wording.at_least(epsilons.implied.lower),
        "" if accuracy is None else wording.found(accuracy, "accuracy"),
        f"{run.seconds:.0f}",
    ]


def _assumptions(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return what the proofs rest on, and why there is none, by run; what several share is said once."""
    said: dict[tuple[str, ...], list[str]] = {}
    for run in comparison.runs:
        proved = run.epsilons.proved if run.epsilons else None
        if proved is None:
            continue
        words = (f"unaccounted: {proved.reason}",) if proved.epsilon is None else tuple(proved.assumptions)
        said.setdefault(words, []).append(run.name)
    return [("; ".join(names), list(words)) for words, names in said.items() if words]
