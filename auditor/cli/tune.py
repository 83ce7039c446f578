"""`auditor tune`: the command; what it imports at the top is light."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.context import run_context
from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import AllowCode, DataDir, Device, MaxMemory, WorkDir
from auditor.cli.terminal import say

if TYPE_CHECKING:
    from reports.records.tuning import Look

EPILOG = (
    "Exit codes: 0 a setting was found, or all pass; 1 none passes, or what passes is not accurate enough; 2 usage or "
    "plan error; 3 it could not be decided; 4 an attack failed."
)
FILES = ("tuning.json", "tuning.html", "summary.md", "model.safetensors")


def tune(
    plan: Annotated[Path, typer.Argument(help="Plan of the tuning (TOML): an audit plan and a table named tune.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the page; tune-<plan name> by default.")] = None,
    data_dir: DataDir = None,
    work_dir: WorkDir = Path(".auditor"),
    device: Device = "auto",
    allow_code: AllowCode = False,
    max_memory: MaxMemory = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the least noise at which what attacks find stays under its limits, and say what that does not cover."""
    with guarded(debug=debug):
        from auditor.files.result_files import write_whole
        from auditor.tuning.plan import load_tune_plan
        from auditor.tuning.run import run_tuning
        from reports.pages.tuning_page import look_in_words, render_tuning, tuning_markdown

        chosen = load_tune_plan(plan)
        folder = out or Path(f"tune-{plan.stem}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # nobody shall take an earlier answer for this one's
            (folder / name).unlink(missing_ok=True)

        def started(said: str) -> None:
            say(said, err=True)

        def looked(look: "Look", left: float) -> None:
            minutes = "less than a minute" if left < 60 else f"at most about {left / 60:.0f} min"
            more = f" Left: {minutes}." if left > 0 else ""
            say(f"{look_in_words(chosen.tune.knob, look)}{more}", err=True)

        with run_context(
            work_dir,
            plan_folder=plan.parent,
            data_dir=data_dir,
            device=device,
            allow_code=allow_code,
            max_memory=max_memory,
            quiet=quiet,
        ) as context:
            found = run_tuning(chosen, context, folder, on_start=started, on_look=looked)
        write_whole(folder / "summary.md", tuning_markdown(found))
        write_whole(folder / "tuning.html", render_tuning(found))
        write_whole(folder / "tuning.json", found.to_json())  # last: where it is, the others are
        say(tuning_markdown(found))
        say(f"Page: {folder / 'tuning.html'} (exit code {int(found.exit_code)})")
    raise typer.Exit(int(found.exit_code))
