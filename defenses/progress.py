"""How long-running work reports how far it is; the command line renders it, libraries stay silent."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one stage has come.

    Attributes:
        stage: What is being done, for a person: "training 16 shadow models".
        done: Units done, in 0 .. total.
        total: Units in this stage.
        detail: A short remark on speed or state, or empty.
    """

    stage: str
    done: float
    total: float
    detail: str = ""


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody: the default of every function that takes `on_progress`."""
