"""What a run is given beside its plan."""

from dataclasses import dataclass
from pathlib import Path

from auditor.workplace import Workplace
from defenses.progress import OnProgress, silent
from defenses.training import resolve_device


@dataclass(frozen=True)
class Setting:
    """What a run is given beside its plan.

    Attributes:
        workplace: Private folder for models and secrets.
        plan_folder: Folder that relative paths in the plan start from.
        data_dir: Where data sets are looked for first, or None.
        device: "cpu", "cuda" or "auto".
        allow_code: Whether the plan may name code to run.
        on_progress: Called while it works.
    """

    workplace: Workplace
    plan_folder: Path = Path()
    data_dir: Path | None = None
    device: str = "auto"
    allow_code: bool = False
    on_progress: OnProgress = silent

    @property
    def place(self) -> str:
        """The device that "auto" stands for."""
        return str(resolve_device(self.device))
