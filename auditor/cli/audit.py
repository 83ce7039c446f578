"""`auditor audit`: the command; what it imports at the top is light."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.context import run_context
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import AllowCode, DataDir, Device, MaxMemory, WorkDir
from auditor.cli.terminal import say

if TYPE_CHECKING:
    from auditor.context import RunContext
    from auditor.plan.plan import Plan


def audit(
    plan: Annotated[Path, typer.Argument(help="Audit plan (TOML).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report; audit-<plan name> by default.")
    ] = None,
    data_dir: DataDir = None,
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    allow_code: AllowCode = False,
    include_records: Annotated[
        bool,
        typer.Option("--include-records", help="Show private records beside their reconstructions in the report."),
    ] = False,
    max_memory: MaxMemory = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Audit a target that the plan trains, or a trained checkpoint."""
    with guarded(debug=debug):
        from auditor.plan.plan import load_plan
        from auditor.report_files import clear

        chosen = load_plan(plan)
        folder = out or Path(f"audit-{plan.stem}")
        clear(folder)
        if allow_code:
            sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, so that a package lying here is found
        context = run_context(
            work_dir,
            plan_folder=plan.parent,
            data_dir=data_dir,
            device=device,
            allow_code=allow_code,
            include_records=include_records,
            max_memory=max_memory,
            quiet=quiet,
        )
        code = run_one(chosen, context, folder)
    raise typer.Exit(code)


def run_one(plan: "Plan", context: AbstractContextManager["RunContext"], folder: Path) -> int:
    """Run one plan, write its files and say what was found; returns the exit code.

    Args:
        plan: What to audit.
        context: From `run_context`; it is closed, and progress with it, before anything is printed.
        folder: Where the files go.
    """
    from auditor.audit import run_audit
    from auditor.report_files import write_audit

    with context as entered:
        found = run_audit(plan, entered)
    page = write_audit(found, folder)
    say(f"{found.trained} models trained, {found.found} found trained", err=True)
    code = found.report.exit_code
    say(f"{found.report.verdict.upper()}: {found.report.headline}")
    say(f"Report: {page} (exit code {int(code)})")
    return int(code)
