"""The command line: parse, call, show progress, exit code; results on standard output, progress on standard error."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from auditor.cli import compare as comparing
from auditor.cli import reproduce as reproducing
from auditor.cli import tune as tuning
from auditor.cli.debug_dp import EPILOG, debug_dp
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.gate import gate
from auditor.cli.options import AllowCode, DataDir, Device, MaxMemory, WorkDir
from auditor.cli.terminal import say

app = typer.Typer(
    name="auditor",
    help="Measure what a trained model leaks about its training records, and check it against the privacy it claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

NOT_PLANTED = "Nothing was planted; what was half made is removed by the next call with the same --out and --secret."

EXIT_CODES = (
    "Exit codes: 0 pass; 1 a limit is exceeded or a claim contradicted; 2 usage or plan error; 3 inconclusive; "
    "4 an attack failed, so the audit is incomplete; 5 a baseline that cannot be compared."
)


@app.command(epilog=EXIT_CODES)
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
        code = _run(
            chosen,
            folder,
            plan.parent,
            data_dir,
            work_dir,
            device,
            allow_code=allow_code,
            include_records=include_records,
            max_memory=max_memory,
            quiet=quiet,
        )
    raise typer.Exit(code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the reports.")] = Path("audit-demo"),
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Audit a small network on scikit-learn's digits, without protection and with DP-SGD (under a minute)."""
    with guarded(debug=debug):
        from auditor.cli.demo import PLANS, demo_plan
        from reports.exit_codes import ExitCode

        for name in PLANS:
            plan = demo_plan(name)
            say(f"\n{plan.title}")
            code = _run(plan, out / name, Path(), None, work_dir, device, allow_code=False, quiet=quiet)
            if code == ExitCode.INCOMPLETE:
                raise typer.Exit(code)
        say(f"\nOpen {out / PLANS[0] / 'report.html'} in a browser, then {out / PLANS[1] / 'report.html'}.")


@app.command()
def plant(
    source: Annotated[str, typer.Argument(help="Data: a name that `auditor list` shows, a file, or an image folder.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the planted data.")],
    secret: Annotated[
        Path, typer.Option("--secret", help="New file for the sealed coins, outside --out; training must not read it.")
    ],
    canaries: Annotated[int, typer.Option("--canaries", help="Candidates; each is planted by its own fair coin.")],
    kind: Annotated[str, typer.Option("--kind", help="Kind of canary that `auditor list` shows.")] = "mislabelled",
    label: Annotated[str | None, typer.Option("--label", help="Tables: the label column.")] = None,
    reading: Annotated[
        Path | None,
        typer.Option(
            "--reading", help="TOML file with further keys of a plan's source: ranges, categories, exclude ..."
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Claim to be tested; too few canaries for it are refused.")
    ] = None,
    delta: Annotated[float, typer.Option("--delta", help="Delta of the claim.")] = 1e-5,
    attacks: Annotated[
        int | None,
        typer.Option(
            "--attacks", help="Attacks that the audit will run: fewer show more. Those of a plan that lists none."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Plant even if the claim cannot be contradicted.")] = False,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Plant canaries into a data set by fair coins, so that your own training on it can be audited afterwards."""
    with guarded(debug=debug, stopped=NOT_PLANTED):
        from auditor.canaries.request import detectability, find_kind, read_request
        from auditor.cli.progress import shown_progress

        chosen, asked = find_kind(kind), read_request(source, label, reading)
        for line in detectability(canaries, epsilon=epsilon, delta=delta, attacks=attacks, force=force):
            say(line)
        from auditor.canaries.planting import plant as write

        with shown_progress(quiet=quiet) as on_progress:
            planted = write(
                asked,
                kind=chosen,
                canaries=canaries,
                out=out,
                secret=secret,
                data_dir=data_dir,
                on_progress=on_progress,
            )
        say(f"Planted data: {planted.data}")
        if planted.removed:
            say(f"Records that left the data because canaries were made of them: {planted.removed}")
        say(f"Commitment: {planted.commitment}")
        say(f"Sealed coins: {secret} (keep it from the training; the audit needs it)")


app.command(epilog=EXIT_CODES)(gate)
app.command(epilog=comparing.EPILOG)(comparing.compare)
app.command(epilog=tuning.EPILOG)(tuning.tune)
app.command(name="debug-dp", epilog=EPILOG)(debug_dp)
app.command(epilog=reproducing.EPILOG)(reproducing.reproduce)


@app.command()
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


@app.command(name="list")
def list_all(debug: Debug = False) -> None:
    """List data sets, architectures, schemes and attacks that a plan can name, and kinds of canaries."""
    with guarded(debug=debug):
        from attacks.registry import registered_attacks
        from auditor.canaries.canary_type import canary_types
        from auditor.datasets import names
        from defenses.architectures import FACTORIES
        from defenses.schemes import registered_schemes

        sections = {
            "Data sets ([data] source = ...)": names(),
            "Architectures ([model] architecture = ...)": {
                name: (factory.__doc__ or "").splitlines()[0] for name, factory in FACTORIES.items()
            },
            "Schemes ([scheme] name = ...)": {name: scheme.paper for name, scheme in registered_schemes().items()},
            "Attacks ([[attacks]] name = ...)": {name: attack.paper for name, attack in registered_attacks().items()},
            "Canaries (auditor plant --kind ...)": {name: kind.summary for name, kind in canary_types().items()},
        }
        for title, entries in sections.items():
            say(title)
            width = max(len(name) for name in entries) + 2
            for name, text in entries.items():
                say(f"  {name:<{width}}{text}")
            say("")


def _run(
    plan: object,
    folder: Path,
    plan_folder: Path,
    data_dir: Path | None,
    work_dir: Path,
    device: str,
    *,
    allow_code: bool,
    quiet: bool,
    include_records: bool = False,
    max_memory: str | None = None,
) -> int:
    """Run one plan, write its files, say what was found; returns the exit code."""
    from auditor.audit import run_audit
    from auditor.cli.progress import shown_progress
    from auditor.context import RunContext
    from auditor.files.memory_budget import budget_of
    from auditor.plan.plan import Plan
    from auditor.report_files import write_audit
    from auditor.workspace import Workspace

    assert isinstance(plan, Plan)
    with shown_progress(quiet=quiet) as on_progress:
        context = RunContext(
            workspace=Workspace(work_dir),
            plan_folder=plan_folder,
            data_dir=data_dir,
            device=device,
            allow_code=allow_code,
            include_records=include_records,
            on_progress=on_progress,
            max_memory=budget_of(max_memory),
        )
        found = run_audit(plan, context)
    page = write_audit(found, folder)
    say(f"{found.trained} models trained, {found.found} found trained", err=True)
    code = found.report.exit_code
    say(f"{found.report.verdict.upper()}: {found.report.headline}")
    say(f"Report: {page} (exit code {int(code)})")
    return int(code)


def main() -> None:
    """Run the command line."""
    app()
