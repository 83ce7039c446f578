"""What a run is given beside its plan."""

from dataclasses import dataclass
from pathlib import Path

import torch

from auditor.workplace import Workplace
from defenses.errors import PlanError
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
        include_records: Whether the report may show private records.
        on_progress: Called while it works.
    """

    workplace: Workplace
    plan_folder: Path = Path()
    data_dir: Path | None = None
    device: str = "auto"
    allow_code: bool = False
    include_records: bool = False
    on_progress: OnProgress = silent

    @property
    def place(self) -> str:
        """The device that "auto" stands for."""
        return str(resolve_device(self.device))

    def __post_init__(self) -> None:
        known = ("auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count())))
        if self.device not in known or (self.device.startswith("cuda") and not torch.cuda.is_available()):
            there = "there is a CUDA device" if torch.cuda.is_available() else "there is no CUDA device here"
            raise PlanError(f"device is {self.device!r}; give auto, cpu or cuda ({there})")
