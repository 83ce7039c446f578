"""Progress on standard error: a bar with time left in a terminal, a line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Iterator

from defenses.progress import OnProgress, Progress
from reports.untrusted import printable

SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[OnProgress]:
    """Yield a callback that shows progress on standard error until the block ends.

    Args:
        quiet: Whether to show nothing.
    """
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bars() as on_progress:
            yield on_progress
    else:
        yield _Lines()


@contextlib.contextmanager
def _bars() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),  # a name in it may look like markup
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(printable(progress.stage), detail="")
            detail = printable(progress.detail)
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, detail=detail)

        yield on_progress


class _Lines:
    """One line when a stage begins, then at most one every few seconds, and one when it is done."""

    def __init__(self) -> None:
        self.stage, self.began, self.last = "", 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        finished = progress.done >= progress.total
        if progress.stage != self.stage:
            self.stage, self.began, self.last = progress.stage, now, now
            sys.stderr.write(f"{printable(progress.stage)}\n")
        if finished or now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            share = progress.done / progress.total
            left = "" if finished or not share else f", about {(now - self.began) * (1 - share) / share:.0f} s left"
            sys.stderr.write(f"  {share:4.0%}  {printable(progress.detail)}{left}\n")
        sys.stderr.flush()
