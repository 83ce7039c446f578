"""What the tests of executors have workers do; without torch at the top, which takes a worker seconds to load."""

import functools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from defenses.engine.executors import Processes, RayTasks
from defenses.errors import PlanError
from defenses.progress import OnProgress


def dot(shared: npt.NDArray[np.float64], task: int, on_progress: OnProgress) -> tuple[int, float]:
    return task, float(shared[task] @ shared[0])


def fail(task: BaseException, on_progress: OnProgress) -> None:
    raise task


def threads(task: int, on_progress: OnProgress) -> int:
    import torch

    return torch.get_num_threads()


def granted(task: int, on_progress: OnProgress) -> tuple[dict[str, float], int]:
    import ray

    return ray.get_runtime_context().get_assigned_resources(), os.getpid()


def die(task: int, on_progress: OnProgress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_first(folder: Path, task: int, on_progress: OnProgress) -> int:
    if task == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * task


def wait(folder: Path, task: int, on_progress: OnProgress) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def fail_when_other_waits(folder: Path, task: int, on_progress: OnProgress) -> None:
    if task == 1:
        wait(folder, task, on_progress)
    while not list(folder.iterdir()):
        time.sleep(0.01)
    raise PlanError("enough")


def main(executor: str, folder: str, address: str) -> None:
    """Wait for Ctrl-C, even where whoever started this ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen: Any = {"processes": Processes(2), "ray": RayTasks(address)}[executor]
    for _ in chosen.run(functools.partial(wait, Path(folder)), [0, 1], on_progress=lambda index, progress: None):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
