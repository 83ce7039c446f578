"""The command line: every command by its name, each in a file of its own that is light to import."""

from typing import Annotated

import typer

from auditor.cli import audit, compare, debug_dp, demo, explain, gate, plant, render, reproduce, tune
from auditor.cli import list as listing
from auditor.cli.terminal import say

app = typer.Typer(
    name="auditor",
    help="Measure what a trained model leaks about its training records, and check it against the privacy it claims.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

EXIT_CODES = (
    "Exit codes: 0 pass; 1 a limit is exceeded or a claim contradicted; 2 usage or plan error; 3 inconclusive; "
    "4 an attack failed, so the audit is incomplete; 5 a baseline that cannot be compared."
)


def _say_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        say(f"privacy-auditor {importlib.metadata.version('privacy-auditor')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure what a trained model leaks about its training records, and check it against the privacy it claims."""


app.command(epilog=EXIT_CODES)(audit.audit)
app.command()(demo.demo)
app.command()(plant.plant)
app.command(epilog=EXIT_CODES)(gate.gate)
app.command(epilog=compare.EPILOG)(compare.compare)
app.command(epilog=tune.EPILOG)(tune.tune)
app.command(name="debug-dp", epilog=debug_dp.EPILOG)(debug_dp.debug_dp)
app.command(epilog=reproduce.EPILOG)(reproduce.reproduce)
app.command()(render.render)
app.command()(explain.explain)
app.command(name="list")(listing.list_all)


def main() -> None:
    """Run the command line."""
    app()
