"""Plant again and again, each time killed one step later, and look at what was left.

    python plant_kill_points.py FORM FOLDER STRIDE

A step is a call that changes the file system below the folder, as the interpreter's audit events tell of them before
they happen, or an `fsync`; a child process dies at every stride-th of them. A program of its own, because it forks.
Writes a JSON object: how many steps there are, and what was wrong after which.
"""

import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image as Pillow

from auditor.canaries.planting import plant
from auditor.canaries.request import find_kind
from auditor.canaries.sealed_coins import SealedCoins, data_digest
from auditor.datasets.sources import read_source
from auditor.plan.sections import Source
from defenses.errors import AuditError

CHANGES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime"}
COUNT = 50
TOSSED = secrets.token_bytes


def write(form: str, folder: Path) -> Source:
    rng = np.random.default_rng(3)
    records = 12 if form == "folder" else 60
    images, labels = rng.integers(0, 256, (records, 4, 4)).astype(np.uint8), np.arange(records) % 3
    if form == "npz":
        np.savez(folder / "data.npz", x=images, y=labels)
        return Source(source="data.npz")
    if form == "csv":
        table = pd.DataFrame(
            {"age": rng.permutation(records) // 2, "ward": rng.choice(["a", "b"], records), "sick": labels}
        )
        table.to_csv(folder / "data.csv", index=False)
        return Source(source="data.csv", label="sick")
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "data" / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(pixels).save(place / f"{number}.png")
    return Source(source="data")


class Trial:
    """One data set, planted into one place."""

    def __init__(self, form: str, folder: Path) -> None:
        self.folder = folder
        self.source = write(form, folder)
        self.before = {entry.name for entry in folder.iterdir()}
        self.out, self.secret = folder / "new" / "planted", folder / "coins.sealed"

    def plant(self) -> None:
        kind = find_kind("random_noise")
        plant(self.source, kind=kind, canaries=COUNT, out=self.out, secret=self.secret, folder=self.folder)

    def killed_at(self, step: int) -> bool:
        """Plant in a child that is killed at a step; tell whether it came to that."""
        child = os.fork()
        if not child:
            os.umask(0)  # modes must not depend on it
            _arm(step, self.folder)
            self.plant()
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in (0, -signal.SIGKILL), ended
        return ended != 0

    def state(self) -> str:
        """Return what stands there under its own name."""
        return {(0, 0): "nothing", (1, 0): "sealed file", (1, 1): "all"}.get(
            (self.secret.exists(), self.out.exists()), "data without sealed file"
        )

    def faults(self) -> list[str]:
        """Return what is wrong with a finished planting."""
        try:
            sealed = SealedCoins.read(self.secret)
            public = json.loads((self.out / "planted.json").read_text())
            named = self.source.model_copy(update={"source": str(self.out / sealed.data)})
            back = read_source(named, self.folder, None)
        except (AuditError, OSError, ValueError) as error:
            return [f"cannot be read: {error}"]
        found = {
            "commitments differ": public["commitment"] != sealed.commitment,
            "other data": data_digest(back) != sealed.data_digest,
            "mode of the sealed file": self.secret.stat().st_mode & 0o777 != 0o600,
            "mode of the folder": self.out.stat().st_mode & 0o777 != 0o700,
        }
        return [fault for fault, holds in found.items() if holds]

    def open_to_others(self) -> list[str]:
        """Return what of a planting that was killed others can reach."""
        hidden = [*self.folder.glob(".*.planting"), *self.folder.glob("new/.*.planting")]
        return [f"{entry.name} is open to others" for entry in hidden if entry.stat().st_mode & 0o077]

    def repeat(self, state: str) -> list[str]:
        """Plant once more, and return what is wrong with how that went."""
        try:
            self.plant()
        except AuditError as error:
            if state != "all" or "belong together" not in str(error):
                return [f"refused: {error}"]
        else:
            if state == "all":
                return ["planted over a whole planting"]
        left = {entry.name for entry in self.folder.iterdir()} - self.before
        expected = {"new", "coins.sealed"}
        inside = {entry.name for entry in self.out.parent.iterdir()}
        return self.faults() + ([] if (left, inside) == (expected, {"planted"}) else [f"left over: {left}, {inside}"])

    def clear(self) -> None:
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.secret.unlink(missing_ok=True)


def _arm(step: int, folder: Path) -> None:
    """Kill this process at its n-th change of the file system below a folder."""
    left = step
    inside, writing = str(folder), os.O_WRONLY | os.O_RDWR | os.O_CREAT
    sync = os.fsync

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        named = str(arguments[0]) if arguments else ""
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & writing
        if (opened and named.startswith(inside)) or (event in CHANGES and named.startswith(inside)):
            count()

    def counted_sync(descriptor: int) -> None:
        count()
        sync(descriptor)

    sys.addaudithook(watch)
    os.fsync = counted_sync


def _tossed(count: int) -> bytes:
    """Return every other coin as heads: the number of files of a folder, and so of steps, must not change."""
    return bytes(k % 2 for k in range(count)) if count == COUNT else TOSSED(count)


def main(form: str, folder: Path, stride: int) -> None:
    secrets.token_bytes = _tossed
    trial = Trial(form, folder)
    faults: dict[int, list[str]] = {}
    states: dict[str, int] = {}
    step = 1
    while trial.killed_at(step):
        state = trial.state()
        states[state] = states.get(state, 0) + 1
        found = trial.open_to_others() + (trial.faults() if state == "all" else [])
        found += [state] if state == "data without sealed file" else []
        found += trial.repeat(state)
        if found:
            faults[step] = found
        trial.clear()
        step += stride
    found = {"steps": step - stride, "states": states, "whole": trial.faults(), "faults": faults}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
