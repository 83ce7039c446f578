"""`auditor explain`: what a word of a report means, and where to read more."""

from typing import Annotated

import typer

from auditor.cli.errors import Debug, guarded
from auditor.cli.terminal import say


def explain(
    term: Annotated[
        str | None,
        typer.Argument(help="Finding code (PA001), status (inconclusive), exit code (3) or measure (auc)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Explain a finding code, a status, an exit code or a measure; without a term, list what can be explained."""
    with guarded(debug=debug):
        from reports.errors import ReportError
        from reports.pages.explanations import explain as explanation_of
        from reports.pages.explanations import known_terms
        from reports.suggestions import nearest
        from reports.untrusted import quoted

        if term is None:
            width = max(map(len, known_terms())) + 2
            for known in known_terms():
                found = explanation_of(known)
                assert found is not None
                say(f"{known:<{width}}{found.title}")
            return
        found = explanation_of(term)
        if found is None:
            hint = (
                nearest(term, known_terms(), listed=False) or "; `auditor explain` without a term lists what is known"
            )
            raise ReportError(f"term {quoted(term)} is unknown{hint}")
        say(f"{found.term}: {found.title}\n\n{found.meaning}\n\nMore: {found.page}")
