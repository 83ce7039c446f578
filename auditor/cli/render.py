"""`auditor render`: the command; it reads a record and loads no torch."""

from pathlib import Path
from typing import Annotated

import typer

from auditor.cli.errors import Debug, guarded
from auditor.cli.terminal import say


def render(
    report: Annotated[Path, typer.Argument(help="report.json of an audit.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the page; beside the report by default.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write report.html and summary.md again from a report.json."""
    with guarded(debug=debug):
        from auditor.report_files import write_readable
        from reports.records.report import Report

        page = write_readable(Report.read(report), out or report.parent)
        say(page)
