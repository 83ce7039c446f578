"""What every command shares: options, and errors turned into one sentence and an exit code."""

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

LONGEST = 1_500
"""Characters of a message."""

KEPT = "Trained models are kept; run the same command again to continue."


@contextlib.contextmanager
def guarded(*, debug: bool, stopped: str = KEPT) -> Iterator[None]:
    """Turn an error into one sentence and an exit code: 2 for what the user can mend, 4 for what broke underneath.

    Args:
        debug: Whether to show tracebacks and log messages.
        stopped: What Ctrl-C leaves behind.
    """
    if debug:
        logging.basicConfig(level=logging.WARNING)
        logging.getLogger("auditor").setLevel(logging.DEBUG)
    try:
        with _calm_while_loading(stopped):
            yield
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. {stopped}", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if isinstance(error, typer.Exit):
            raise
        if debug:
            traceback.print_exc()
        text, code = in_words(error)
        typer.echo(f"auditor: {text}", err=True)
        raise typer.Exit(code) from None


def in_words(error: Exception) -> tuple[str, int]:
    """Return one printable sentence about an error, and an exit code: its own, 2 if the user can mend it, else 4."""
    from auditor.reasons import is_disk_full, is_mendable, is_out_of_memory
    from reports.untrusted import printable

    if is_disk_full(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return printable(f"the disk is full{where}; make room, or name another one with --out and --work-dir"), 4
    if is_out_of_memory(error):
        remedy = "close other programs, or take fewer records, shadow models or a smaller batch_size"
        return printable(f"there is not enough memory ({type(error).__name__}); {remedy}"), 4
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else "a file cannot be read or written: "
        said = f"{where}{error.strerror or error or type(error).__name__}"
        mendable = is_mendable(error)
        return printable(
            f"{said}; give a path that can be read and written" if mendable else said
        ), 2 if mendable else 4
    if _is_expected(error):
        return printable(str(error), longest=LONGEST), getattr(error, "exit_code", 2)
    said = printable(f"internal error, {type(error).__name__}: {error}", longest=LONGEST)
    return f"{said} (--debug shows where)", 4


@contextlib.contextmanager
def _calm_while_loading(stopped: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once while torch is being imported: an exception in its native part aborts it."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        if getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False):
            os.write(2, f"\nStopped. {stopped}\n".encode())
            os._exit(130)  # nothing is made yet that would have to be put away
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody else decides what Ctrl-C does, or that it does nothing
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_expected(error: Exception) -> bool:
    from reports.errors import ReportError

    if isinstance(error, ReportError):
        return True
    loaded = sys.modules.get("defenses.errors")  # not loaded means that it cannot have been raised
    return loaded is not None and isinstance(error, loaded.AuditError)
