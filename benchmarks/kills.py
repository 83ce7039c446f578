"""What SIGKILL leaves: commands are killed at random moments and started again until they end.

Every case runs once undisturbed. Then each trial starts it in a fresh folder, kills its whole process group, starts it
again, and so on; what it ends with must be what the undisturbed run ended with. Plans have a seed and layouts of the
training are pinned, so nothing but a kill can make a difference. A planting draws its coins anew each time: what is
looked at is whether sealed file and data belong together.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Settings, Style, note, table
from benchmarks.startup import CALL
from defenses.engine.storage import Storage
from defenses.engine.store import ModelStore

NAME = "kills"
SEED = 20240601
AGAIN = 0.8  # chance that a restart is killed as well
MOST_KILLS = 8  # of one trial
SHORTEST = 0.1  # seconds of work to draw a moment from
PATIENCE = 1800.0  # seconds after which a run counts as hanging
UNSTEADY = {"started", "seconds", "seconds_training", "timing"}
"""Keys of a result that differ between undisturbed runs."""

PLAN = """
title = "kills"
seed = 1
shadows = 6
{limits}
[data]
source = "digits"
pool = 300
population = 200

[model]
architecture = "mlp"
options = {{ hidden = [32] }}

[training]
epochs = 12
batch_size = 32
learning_rate = 0.1

[[attacks]]
name = "lira"
"""
LIMIT = """
[[limits]]
measure = "auc"
maximum = 0.9
"""
SCHEMES = """
[[schemes]]
name = "none"

[[schemes]]
name = "dp_sgd"
vary = "noise_multiplier"
values = [4, 1]
"""
TUNING = """
[scheme]
name = "dp_sgd"
max_grad_norm = 1.0

[tune]
knob = "noise_multiplier"
settings = [8, 2, 0.5]
"""


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes:
        name: What the row is called.
        command: Arguments of `auditor`, run in the trial's folder.
        sign: What appears in the folder when the work begins; moments are drawn from then on, not from the imports.
        result: The file that it ends with.
        plan: Text of `plan.toml`.
        workers: Processes that train.
    """

    name: str
    command: tuple[str, ...]
    sign: str
    result: str
    plan: str = ""
    workers: int = 1


RUN = ("plan.toml", "--out", "out", "--work-dir", "work", "--quiet")
AUDIT = PLAN.format(limits="") + LIMIT
CASES = (
    Case("audit", ("audit", *RUN), "work", "out/report.json", AUDIT),
    Case("audit, 2 processes", ("audit", *RUN), "work/models", "out/report.json", AUDIT, workers=2),
    Case("compare", ("compare", *RUN), "work", "out/comparison.json", PLAN.format(limits="limits = []") + SCHEMES),
    Case("tune", ("tune", *RUN), "work", "out/tuning.json", PLAN.format(limits="") + LIMIT + TUNING),
    Case(
        "plant",
        ("plant", "digits", "--canaries", "500", "--out", "planted", "--secret", "coins.sealed", "--quiet"),
        ".planted.planting",
        "planted/planted.json",
    ),
)


@dataclass
class Ended:
    """How one start of a command ended.

    Attributes:
        code: Exit code; None where it was killed or hung.
        errors: What it wrote to standard error.
        before: Seconds until its work began.
        seconds: Seconds of work until the result was there.
    """

    code: int | None
    errors: str
    before: float
    seconds: float


@dataclass
class Reference:
    """The undisturbed run of a case: how it ended, digest of its result, names that it leaves, layouts it took."""

    ended: Ended
    digest: str
    names: frozenset[str]
    layouts: Mapping[str, str]


def run(settings: Settings) -> dict[str, Any]:
    kills = settings.rounds(full=50, quick=1)
    rng = np.random.default_rng(SEED)
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="kills-") as scratch, _own_state(scratch):
            rows.append(_measure(case, Path(scratch), kills, rng))
        note(f"  {rows[-1]}")
    settled = {"kills of each": kills, "quick": settings.quick, "seed": SEED, "again": AGAIN, "most_kills": MOST_KILLS}
    return {"settings": settled, "unit": "counts", "rows": rows}


def show(result: dict[str, Any], style: Style) -> str:
    keys = ("case", "trials", "kills", "resumed", "different", "failed", "tracebacks", "left over")
    return table(result["rows"], {key: key for key in keys}, style)


@contextmanager
def _own_state(scratch: str) -> Iterator[None]:
    """Keep the runs out of the user's list of attempts."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = f"{scratch}/state"
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before


def _measure(case: Case, scratch: Path, least: int, rng: np.random.Generator) -> dict[str, Any]:
    """Run trials until the command was killed `least` times, and no more trials than that."""
    reference = _reference(case, scratch)
    row: dict[str, Any] = {"case": case.name, "seconds of work": round(reference.ended.seconds, 1)}
    row |= dict.fromkeys(("trials", "kills", "resumed", "different", "failed", "tracebacks", "left over"), 0)
    row["after a kill"] = {}
    reach = reference.ended.seconds  # of the moments; less where the machine has become faster since
    while row["kills"] < least and row["trials"] < least:
        folder = _prepared(case, scratch / f"trial{row['trials']}", reference.layouts)
        row["trials"] += 1
        kills = 0
        while True:
            killing = kills == 0 or (kills < MOST_KILLS and rng.random() < AGAIN)
            delay = rng.uniform(0, reach) if killing else None
            ended = _start(case, folder, delay, before=reference.ended.before)
            row["tracebacks"] += "Traceback" in ended.errors
            if ended.code is not None or not killing:
                break
            kills += 1
            if case.plan:
                row["different"] += _claims_another_result(case, folder, reference)
            else:
                state = _planted(folder)
                row["after a kill"][state] = row["after a kill"].get(state, 0) + 1
                row["different"] += state == "data without sealed file"
        reach = reach if kills else min(reach, ended.seconds)
        row["kills"] += kills
        whole = not case.plan and ended.code == 2 and "belong together" in ended.errors  # was whole when it was killed
        failed = ended.code != reference.ended.code and not whole
        row["failed"] += failed
        row["resumed"] += kills > 0 and not failed
        row["different"] += not failed and _digest(case, folder) != reference.digest
        row["left over"] += len(_names(folder) - reference.names)
    return row


def _reference(case: Case, scratch: Path) -> Reference:
    layouts: Mapping[str, str] = {}
    before = 0.0
    if case.workers > 1:  # a first run, to learn which layouts there are
        first = _prepared(case, scratch / "layouts", {})
        before = _start(case, first, None).before
        layouts = {
            name: json.dumps(json.loads(text) | {"workers": case.workers, "threads": 1, "width": 2})
            for name, text in _layouts(first).items()
        }
    folder = _prepared(case, scratch / "reference", layouts)
    ended = _start(case, folder, None, before=before)
    if ended.code is None or not (folder / case.result).exists():
        raise RuntimeError(f"{case.name} does not run undisturbed (exit code {ended.code}): {ended.errors[-300:]}")
    return Reference(ended, _digest(case, folder), _names(folder), _layouts(folder))


def _prepared(case: Case, folder: Path, layouts: Mapping[str, str]) -> Path:
    """Make a fresh folder with the plan and the layouts that its training shall take."""
    folder.mkdir()
    if case.plan:
        (folder / "plan.toml").write_text(case.plan)
    if layouts:
        (folder / "work").mkdir(mode=0o700)
        storage = _models(folder)
        for name, text in layouts.items():
            storage.write(text.encode(), name)
    return folder


def _models(folder: Path) -> Storage:
    """Return where a run keeps its models and layouts."""
    return ModelStore(folder / "work" / "models").storage


def _layouts(folder: Path) -> dict[str, str]:
    storage = _models(folder)
    found = {path.name: storage.read(path.name) for path in (folder / "work" / "models").glob("*.layout")}
    return {name: content.decode() for name, content in found.items() if content is not None}


@contextmanager
def _process(case: Case, folder: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command at the head of a process group of its own, and end all of the group."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with errors.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", CALL, *case.command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=written,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not only its head: workers outlive it otherwise
            process.wait()


def _start(case: Case, folder: Path, delay: float | None, *, before: float = 0.0) -> Ended:
    """Run a command, and kill it so many seconds after its work began; None lets it end.

    In a folder that shows the sign already, the work is taken to begin when the sign changes, or else `before` seconds
    after the start.
    """
    errors = folder.with_suffix(".errors")
    sign, result = _stamp(folder / case.sign), _stamp(folder / case.result)
    begun, work, done = time.monotonic(), None, None
    with _process(case, folder, errors) as process:
        while process.poll() is None and time.monotonic() - begun < PATIENCE:
            now = time.monotonic()
            if work is None and (_stamp(folder / case.sign) != sign or (sign is not None and now - begun >= before)):
                work = now
            if _stamp(folder / case.result) in (None, result):
                done = None  # it is made and removed at the beginning, to see whether it can be written
            elif done is None:
                done = now
            if delay is not None and work is not None and now - work >= delay:
                break
            time.sleep(0.001)
        code = process.poll()
    now = time.monotonic()
    work = begun if work is None else work
    seconds = max((now if done is None else done) - work, SHORTEST)
    return Ended(code, errors.read_text(errors="replace"), work - begun, seconds)


def _stamp(path: Path) -> int | None:
    """Return when a file was written, or None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _digest(case: Case, folder: Path) -> str:
    if not case.plan:
        return _planted(folder)
    found = _steady(json.loads((folder / case.result).read_text()))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _steady(value: Any) -> Any:
    """Return a record without what differs between runs of the same plan."""
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in UNSTEADY}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _claims_another_result(case: Case, folder: Path, reference: Reference) -> bool:
    """Tell whether a killed run left a result that is not the reference's: half of one, or that of less work."""
    try:
        return (folder / case.result).exists() and _digest(case, folder) != reference.digest
    except ValueError:
        return True


def _planted(folder: Path) -> str:
    """Return what stands there of a planting, under its own name."""
    from auditor.canaries.data_format import read_back
    from auditor.canaries.sealed_coins import SealedCoins, data_digest

    out, secret = folder / "planted", folder / "coins.sealed"
    if not (out.exists() and secret.exists()):
        return "data without sealed file" if out.exists() else "sealed file" if secret.exists() else "nothing"
    sealed = SealedCoins.read(secret)
    said = json.loads((out / "planted.json").read_text())["commitment"]
    back = read_back(out / sealed.data, sealed.reading, like=sealed.candidates)
    modes = (out.stat().st_mode & 0o777, secret.stat().st_mode & 0o777)
    whole = said == sealed.commitment and data_digest(back) == sealed.data_digest and modes == (0o700, 0o600)
    return "all" if whole else "spoiled"


def _names(folder: Path) -> frozenset[str]:
    """Return the files and folders that a run leaves; content keys are the same in every run of a plan."""
    every = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return frozenset(re.sub(r"(?<=/)(seed|salt)-[0-9a-f]+", r"\1", name) for name in every)
