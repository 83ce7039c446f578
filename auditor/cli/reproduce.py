"""`auditor reproduce`: the command; what it imports at the top is light."""

from pathlib import Path
from typing import Annotated

import typer

from auditor.cli.context import run_context
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import DataDir, Device, WorkDir
from auditor.cli.terminal import say

EPILOG = "Exit codes: 0 it ran, whatever came out; 2 usage error; 4 it broke. A figure that differs is a result."
FILES = ("reproduction.json", "reproduction.html", "summary.md")


def reproduce(
    paper: Annotated[str, typer.Argument(help="P1, P2, P3 or P5.")],
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="Share of the paper's own size, in (0, 1]; by default what two cores can do."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the page; reproduce-<paper> by default.")
    ] = None,
    data_dir: DataDir = None,
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do a source paper's experiment again and print every figure it states beside ours."""
    with guarded(debug=debug):
        import json

        from auditor.files.result_files import write_whole
        from auditor.reproductions import experiments
        from defenses.errors import PlanError
        from reports.pages.reproduction_page import render_reproduction, reproduction_markdown
        from reports.suggestions import nearest

        known = experiments()
        if paper.upper() not in known:
            raise PlanError(f"paper {paper!r} is unknown{nearest(paper.upper(), list(known))}")
        experiment = known[paper.upper()]
        share = experiment.DEFAULT_SCALE if scale is None else scale
        if not 0 < share <= 1:
            raise PlanError(f"scale is {share}; it must be in (0, 1], the share of the paper's own size")
        folder = out or Path(f"reproduce-{paper.lower()}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # an earlier run's page is not this one's
            (folder / name).unlink(missing_ok=True)
        with run_context(work_dir, data_dir=data_dir, device=device, quiet=quiet) as context:
            found = experiment.reproduce(share, context)
        text = reproduction_markdown(found)
        plain = json.loads(found.model_dump_json())
        write_whole(folder / "summary.md", text)
        write_whole(folder / "reproduction.html", render_reproduction(found))
        # Last: where it is, the others are.
        write_whole(folder / "reproduction.json", json.dumps(plain, indent=2, allow_nan=False) + "\n")
        say(text)
        say(f"Page: {folder / 'reproduction.html'}")
