"""`auditor compare`: the command; what it imports at the top is light."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.context import run_context
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import AllowCode, DataDir, Device, MaxMemory, WorkDir
from auditor.cli.terminal import say

if TYPE_CHECKING:
    from reports.records.comparison import ComparedRun

EPILOG = (
    "Exit codes: 0 nothing promised is contradicted; 1 something is; 2 usage or plan error; 4 a run failed, so the "
    "comparison is incomplete."
)


def compare(
    plan: Annotated[Path, typer.Argument(help="Plan of the comparison (TOML): an audit plan that lists schemes.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the page; compare-<plan name> by default.")
    ] = None,
    data_dir: DataDir = None,
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    allow_code: AllowCode = False,
    max_memory: MaxMemory = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Audit several schemes and budgets on one data set: epsilon claimed, proved and shown, accuracy and cost."""
    with guarded(debug=debug):
        from auditor.compare.plan import load_compare_plan
        from auditor.compare.run import run_comparison
        from auditor.files.result_files import write_whole
        from reports.pages.comparison_page import comparison_markdown, headline, render_comparison
        from reports.records.comparison import Place, place_of

        chosen = load_compare_plan(plan)
        folder = out or Path(f"compare-{plan.stem}")
        for name in ("comparison.json", "comparison.html", "summary.md"):
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

        def said(number: int, count: int, run: "ComparedRun") -> None:
            say(f"{number} of {count}: {run.name}: {place_of(run)}", err=True)

        with run_context(
            work_dir,
            plan_folder=plan.parent,
            data_dir=data_dir,
            device=device,
            allow_code=allow_code,
            max_memory=max_memory,
            quiet=quiet,
        ) as context:
            found = run_comparison(chosen, context, folder, on_run=said)
        write_whole(folder / "summary.md", comparison_markdown(found))
        write_whole(folder / "comparison.html", render_comparison(found))
        write_whole(folder / "comparison.json", found.to_json())  # last: where it is, the others are
        places = [place_of(run) for run in found.runs]
        code = 1 if Place.CONTRADICTED in places else 4 if Place.FAILED in places else 0
        say(comparison_markdown(found))
        say(headline(found))
        say(f"Page: {folder / 'comparison.html'} (exit code {code})")
    raise typer.Exit(code)
