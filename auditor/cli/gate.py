"""`auditor gate`: the command; it imports nothing heavy at all, because a CI job waits for it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from auditor.cli.errors import LONGEST, Debug, guarded
from auditor.cli.terminal import say


def gate(
    report: Annotated[Path, typer.Argument(help="report.json of an audit.")],
    policy: Annotated[Path, typer.Option("--policy", help="Policy (TOML): measures and their maxima.")],
    baseline: Annotated[Path | None, typer.Option("--baseline", help="Earlier report.json to compare with.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    sarif: Annotated[Path | None, typer.Option("--sarif", help="Write SARIF here.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write Markdown here.")] = None,
    debug: Debug = False,
) -> None:
    """Turn a report into an exit code; loads no model and runs no code of the plan."""
    with guarded(debug=debug, stopped="Nothing is kept."):
        from auditor.files.result_files import forget, write_whole
        from reports.exit_codes import ExitCode
        from reports.gate.apply_policy import apply_policy as judge
        from reports.gate.policy import load_policy
        from reports.gate.to_junit import to_junit
        from reports.gate.to_markdown import to_markdown
        from reports.gate.to_sarif import to_sarif
        from reports.records.report import Report
        from reports.untrusted import printable

        outputs = [path for path in (junit, sarif, markdown) if path is not None]
        _apart(outputs, [path for path in (report, policy, baseline) if path is not None])
        for path in outputs:
            forget(path)  # an earlier decision is not this one's
        found = Report.read(report)
        earlier = None if baseline is None else Report.read(baseline)
        result = judge(found, load_policy(policy), earlier)
        text = to_markdown(result)
        say(text)
        if result.exit_code is ExitCode.USAGE:
            say(f"auditor: {printable(result.sentence, longest=LONGEST)}", err=True)
        if junit is not None:
            write_whole(junit, to_junit(result))
        if sarif is not None:
            write_whole(sarif, to_sarif(result, found))
        if markdown is not None:
            write_whole(markdown, text)
    raise typer.Exit(result.exit_code)


def _apart(outputs: list[Path], inputs: list[Path]) -> None:
    """Refuse to write over what is read, or twice to one file."""
    from reports.errors import ReportError

    # Unlike Path.resolve, realpath leaves a link to itself as it is; it is refused where it is opened.
    read = {os.path.realpath(path) for path in inputs}
    wanted = [os.path.realpath(path) for path in outputs if not path.is_char_device()]
    for path in wanted:
        if path in read or wanted.count(path) > 1:
            raise ReportError(f"{path} is named twice; give each file that is read or written a name of its own")
