"""What a run is given beside its plan."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from auditor.files.memory_budget import default_budget
from auditor.workspace import Workspace
from defenses.engine.training import resolve_device
from defenses.errors import PlanError
from defenses.progress import OnProgress, silent
from defenses.randomness import derive


@dataclass(frozen=True)
class Replicate:
    """Which of several runs of one plan this is: each has coins, seed and noise of its own.

    Attributes:
        name: What the runs are for; other names, other coins.
        count: How many there are; their targets are trained together.
        index: Which of them this one is, in 0 .. count - 1.

    Raises:
        ValueError: If there is no such run.
    """

    name: str
    count: int = 1
    index: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"index is {self.index}; it must lie in 0..{self.count - 1}")


@dataclass(frozen=True)
class RunContext:
    """What a run is given beside its plan.

    Attributes:
        workspace: Private folder for models and secrets.
        plan_folder: Folder that relative paths in the plan start from.
        data_dir: Where data sets are looked for first, or None.
        device: "cpu", "cuda" or "auto".
        allow_code: Whether the plan may name code to run.
        include_records: Whether the report may show private records.
        on_progress: Called while it works.
        draw: Which of several runs of the plan this is; None where there is one.
        max_memory: Bytes that reading a file may take.
    """

    workspace: Workspace
    plan_folder: Path = Path()
    data_dir: Path | None = None
    device: str = "auto"
    allow_code: bool = False
    include_records: bool = False
    on_progress: OnProgress = silent
    draw: Replicate | None = None
    max_memory: int = field(default_factory=default_budget)

    def root(self, seed: int | None, content: str) -> int:
        """Return the root of coins, sampling and noise: secret, unless the plan gives a seed.

        Args:
            seed: The plan's, at least 0; None for a secret one.
            content: Digest of everything that what is made depends on, beside this randomness. Two outputs that could
                differ in anything else never share a secret root: their difference would have no noise.
        """
        return seed if seed is not None else self.workspace.secret_seed(content)

    def roots(self, seed: int | None, content: str) -> list[int]:
        """Return the root of each run of the draw; see `root`."""
        root = self.root(seed, content)
        if self.draw is None:
            return [root]
        return [derive(root, "draw", self.draw.name, index) for index in range(self.draw.count)]

    @property
    def names(self) -> tuple[str, ...]:
        """What sets the randomness of this run's attackers apart from that of others."""
        return () if self.draw is None else (self.draw.name, str(self.draw.index))

    @property
    def place(self) -> str:
        """The device that "auto" stands for."""
        return str(resolve_device(self.device))

    def __post_init__(self) -> None:
        known = ("auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count())))
        if self.device not in known or (self.device.startswith("cuda") and not torch.cuda.is_available()):
            there = "there is a CUDA device" if torch.cuda.is_available() else "there is no CUDA device here"
            raise PlanError(f"device is {self.device!r}; give auto, cpu or cuda ({there})")
