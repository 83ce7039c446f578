"""`auditor demo`: one small network on scikit-learn's digits, without protection and with DP-SGD."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.audit import run_one
from auditor.cli.context import run_context
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import Device, WorkDir
from auditor.cli.terminal import say

if TYPE_CHECKING:
    from auditor.plan.plan import Plan

PLANS = ("no-protection", "dp-sgd")


def demo_plan(name: str) -> "Plan":
    """Return a plan of the demonstration by its name in `PLANS`."""
    from auditor.plan.plan import parse_plan

    return parse_plan(resources.files("auditor.cli").joinpath("demo_plans", f"{name}.toml").read_text())


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the reports.")] = Path("audit-demo"),
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Audit a small network on scikit-learn's digits, without protection and with DP-SGD (under a minute)."""
    with guarded(debug=debug):
        from reports.exit_codes import ExitCode

        for name in PLANS:
            plan = demo_plan(name)
            say(f"\n{plan.title}")
            code = run_one(plan, run_context(work_dir, device=device, quiet=quiet), out / name)
            if code == ExitCode.INCOMPLETE:
                raise typer.Exit(code)
        say(f"\nOpen {out / PLANS[0] / 'report.html'} in a browser, then {out / PLANS[1] / 'report.html'}.")
