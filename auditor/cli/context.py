"""The set-up that every command which trains shares: progress on standard error, and the context of the run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditor.context import RunContext


@contextlib.contextmanager
def run_context(
    work_dir: Path,
    *,
    plan_folder: Path = Path(),
    data_dir: Path | None = None,
    device: str = "auto",
    allow_code: bool = False,
    include_records: bool = False,
    max_memory: str | None = None,
    quiet: bool = False,
) -> Iterator["RunContext"]:
    """Yield the context of a run whose progress is shown until the block ends; arguments are those of the commands."""
    from auditor.cli.progress import shown_progress
    from auditor.context import RunContext
    from auditor.files.memory_budget import budget_of
    from auditor.workspace import Workspace

    with shown_progress(quiet=quiet) as on_progress:
        yield RunContext(
            workspace=Workspace(work_dir),
            plan_folder=plan_folder,
            data_dir=data_dir,
            device=device,
            allow_code=allow_code,
            include_records=include_records,
            on_progress=on_progress,
            max_memory=budget_of(max_memory),
        )
