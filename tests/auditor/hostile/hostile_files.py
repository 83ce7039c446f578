"""The campaign: hostile files of every kind through the command line, each in a process of its own, and measured.

Run as a program with an empty folder, it leaves `results.json` there and prints a table and every failure in full.
"""

import contextlib
import importlib
import json
import os
import pickle
import pkgutil
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from hostile_case import Case, Scene
from hostile_checkpoints import checkpoints
from hostile_folders import folders
from hostile_harmless import harmless
from hostile_programs import calls, programs
from hostile_records import arrays, images, scores, sealed, tables
from hostile_words import plans, policies, reports
from safetensors.torch import save_file

from auditor.cli.main import app
from defenses.architectures import Architecture

SECONDS = 60
GIBIBYTES = 4
RAN = (0, 1, 3)  # exit codes of an audit that came to an end
LONGEST = 1600  # characters of standard error
KINDS = (checkpoints, arrays, scores, tables, images, plans, policies, reports, sealed, folders)

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_ROOM = 8 * 2**30  # bytes of memory that a process can get at all, so that a fault does not take the machine along
_MIB = 2**20


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        kind: Of the case.
        name: Of the case.
        code: Exit code; negative for a signal.
        seconds: Wall time.
        gibibytes: Most memory that the process held, the libraries that it began with included.
        said: Standard error.
        faults: What is wrong with that.
    """

    kind: str
    name: str
    code: int
    seconds: float
    gibibytes: float
    said: str
    faults: tuple[str, ...]


def main(root: Path, *wanted: str) -> None:
    """Run the campaign, or only the kinds that are wanted, by the names of their functions."""
    root = root.resolve()
    scene = Scene(marker=root / "executed", shared=root / "shared")
    _prepare(scene)
    _load_everything()
    tried = [_outcome(case, scene) for case in harmless(scene)]
    if refused := [one for one in tried if one.code not in RAN]:
        raise SystemExit("\n".join(f"refused without anything hostile: {one}" for one in refused))
    dead = [name for name, program in programs(scene).items() if not _alive(program, scene)]
    outcomes = [
        _outcome(case, scene) for kind in KINDS if not wanted or kind.__name__ in wanted for case in kind(scene)
    ]
    executed = scene.marker.exists()
    record = {"executed": executed, "dead": dead, "outcomes": [asdict(one) for one in outcomes]}
    (root / "results.json").write_text(json.dumps(record, indent=1))
    failures = [f"{one.kind}, {one.name}: {'; '.join(one.faults)}\n{one.said[:4000]}" for one in outcomes if one.faults]
    sys.stdout.write("\n\n".join([table(outcomes), *failures, f"programs that do nothing: {dead or 'none'}\n"]))


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what was measured, a line for each kind."""
    lines = [f"{'kind':<12} {'files':>5} {'worst s':>8} {'worst GiB':>9}  exit codes"]
    for kind in dict.fromkeys(one.kind for one in outcomes):
        own = [one for one in outcomes if one.kind == kind]
        codes = {code: sum(one.code == code for one in own) for code in sorted({one.code for one in own})}
        seconds, memory = max(one.seconds for one in own), max(one.gibibytes for one in own)
        shown = ", ".join(f"{code}: {count}" for code, count in codes.items())
        lines.append(f"{kind:<12} {len(own):>5} {seconds:>8.2f} {memory:>9.2f}  {shown}")
    return "\n".join([*lines, f"{'all':<12} {len(outcomes):>5}"])


def _prepare(scene: Scene) -> None:
    """Make what the cases share: harmless records and their model, programs, and a Ghostscript that is none."""
    shared = scene.shared
    shared.mkdir()
    rng = np.random.default_rng(0)
    for name in ("in", "out"):
        np.savez(shared / f"{name}.npz", x=rng.random((40, 3)), y=np.arange(40) % 2)
    module = Architecture("mlp", {"hidden": [4]}).build((3,), 2, seed=0)
    save_file(module.state_dict(), shared / "model.safetensors")
    call = calls(scene)["posix.system"]
    (shared / "hubconf.py").write_text(f"{scene.python}\ndef go(): pass\n")
    np.save(shared / "objects.npy", np.array([call], dtype=object), allow_pickle=True)
    torch.save(call, shared / "program.pt")
    joblib.dump(call, shared / "program.joblib")
    (shared / "bin").mkdir()
    for name in ("gs", "convert", "magick", "git", "file"):
        program = shared / "bin" / name
        program.write_text(f"#!/bin/sh\n{scene.shell}\nexit 1\n")
        program.chmod(0o755)


def _load_everything() -> None:
    """Import all there is, so that each process starts with it."""
    for name in ("auditor", "attacks", "defenses", "reports"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in ("pyarrow.parquet", "PIL.Image", "pandas", "sklearn.datasets", "matplotlib.pyplot", "scipy.stats"):
        importlib.import_module(name)


def _alive(program: bytes, scene: Scene) -> bool:
    """Say whether a program writes the marker when it is loaded, without which its refusal would show nothing."""
    _measured(lambda: pickle.loads(program), os.devnull)
    found = scene.marker.exists()
    time.sleep(0 if found else 0.3)  # Popen does not wait
    found = found or scene.marker.exists()
    if scene.marker.is_dir():
        scene.marker.rmdir()
    scene.marker.unlink(missing_ok=True)
    return found


def _outcome(case: Case, scene: Scene) -> Outcome:
    folder = scene.shared.parent / "case"
    said = scene.shared.parent / "said"
    folder.mkdir()
    case.put(folder)

    def run() -> None:
        os.chdir(folder)
        os.environ["PATH"] = f"{scene.shared / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.environ.update({name: value.format(folder=folder) for name, value in case.environment.items()})
        sys.addaudithook(lambda event, _: scene.marker.write_text(event) if event.startswith(_STARTS) else None)
        app(list(case.arguments))

    code, seconds, gibibytes = _measured(run, str(said))
    text = said.read_text(errors="surrogateescape")
    faults = _faults(case, code, text)
    faults += [f"it took {seconds:.0f} s"] * (seconds > SECONDS) + [f"it took {gibibytes:.1f} GiB"] * (
        gibibytes > GIBIBYTES
    )
    if scene.marker.exists():
        faults.append(f"something was executed: {scene.marker.read_text()}")
        scene.marker.rename(scene.marker.with_name(f"executed by {case.kind}"))
    shutil.rmtree(folder)
    return Outcome(case.kind, case.name, code, seconds, gibibytes, text, tuple(faults))


def _measured(run: Callable[[], object], said: str) -> tuple[int, float, float]:
    """Run something in a process of its own; returns its exit code, its seconds, and the most GiB that it held."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        os._exit(_in_child(run, said))
    _, status, used = os.wait4(child, 0)
    unit = _MIB * 1024 if sys.platform == "darwin" else _MIB
    return os.waitstatus_to_exitcode(status), time.monotonic() - began, used.ru_maxrss / unit


def _in_child(run: Callable[[], object], said: str) -> int:
    signal.alarm(SECONDS + 5)  # ends the process, whatever it is doing
    resource.setrlimit(resource.RLIMIT_DATA, (_ROOM, _ROOM))
    for path, descriptor in ((os.devnull, 0), (os.devnull, 1), (said, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    code = 0
    try:
        run()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _faults(case: Case, code: int, said: str) -> list[str]:
    if case.may_run and code in RAN:
        return ["it shows a traceback"] * ("Traceback" in said)
    lines = said.splitlines()
    found = [f"exit code {code}"] * (code != 2)
    found += [f"{len(lines)} lines"] * (len(lines) != 1)
    found += ["a traceback"] * ("Traceback" in said)
    found += ["no sentence of ours"] * (not said.startswith("auditor: "))
    found += ["something that a terminal obeys"] * (not all(line.isprintable() for line in lines))
    return found + [f"{len(said)} characters"] * (len(said) > LONGEST)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
