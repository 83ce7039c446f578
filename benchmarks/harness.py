"""Timing that survives a drifting machine, the facts of that machine, tables and JSON.

Cases are timed in turn within a round, and a ratio is taken within its round before the median over rounds: what slows
the machine for a while slows numerator and denominator alike.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from defenses.engine.code_digest import digest_of_folders

RESULTS = Path(__file__).parent / "results"
PARTS = Path(".auditor") / "benchmarks"  # of the folder where the command is run
PACKAGES = ("torch", "numpy", "opacus", "adversarial-robustness-toolbox", "privacy-auditor")

Case = Callable[[], object]
Row = Mapping[str, Any]
Style = Literal["text", "markdown"]


@dataclass(frozen=True)
class Settings:
    """What can be chosen on the command line; None leaves the choice to each benchmark."""

    quick: bool = False
    repeats: int | None = None
    device: str = "cpu"
    width: Any = None
    compiled: bool = False
    models: tuple[int, ...] | None = None
    baseline_models: int = 4
    private: bool = False

    def rounds(self, full: int, quick: int) -> int:
        """Return the number of rounds: as asked, or the benchmark's own."""
        return self.repeats if self.repeats is not None else (quick if self.quick else full)


def interleave(
    cases: Mapping[str, Case],
    repeats: int,
    inner: int = 1,
    *,
    warm_up: bool = True,
    finish: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every case once per round, each round starting one case later than the last.

    Args:
        cases: Name -> function without arguments.
        repeats: Rounds, at least 1.
        inner: Calls per timing, at least 1.
        warm_up: Whether every case is called once before; without it, the caller has done so.
        finish: Called before the clock is read, e.g. to wait for a GPU.
        clock: Seconds.

    Returns:
        Name -> seconds per call (repeats,), in the order of the rounds.
    """
    if repeats < 1 or inner < 1:
        raise ValueError(f"repeats is {repeats}, inner {inner}; both must be at least 1")
    names = list(cases)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names if warm_up else ():
        cases[name]()
    for number in range(repeats):
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            case = cases[name]
            finish()
            start = clock()
            for _ in range(inner):
                case()
            finish()
            times[name].append((clock() - start) / inner)
    return times


def note(text: str) -> None:
    """Say to standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def kept(facts: Sequence[Any], make: Callable[[], Any], folder: Path = PARTS) -> Any:
    """Return what an earlier run made from the same facts and training code, or make and keep it: stop, and go on.

    Args:
        facts: Everything that the result depends on but the toolkit's own code, as plain values.
        make: Returns plain values.
        folder: Where parts are kept.
    """
    root = Path(__file__).parents[1]
    code = digest_of_folders(*(root / package for package in ("attacks", "auditor", "defenses")))
    path = folder / f"{hashlib.sha256(json.dumps([*facts, code]).encode()).hexdigest()[:24]}.json"
    if path.exists():
        return json.loads(path.read_text())
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(made))
    unfinished.replace(path)
    return made


def try_out(cases: Mapping[str, Case]) -> tuple[dict[str, Case], dict[str, str]]:
    """Call every case once; return those that work, and for each that does not its error in one line."""
    working, failures = {}, {}
    for name, case in cases.items():
        try:
            case()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            failures[name] = f"{type(error).__name__}: {lines[0]}"[:200]
        else:
            working[name] = case
    return working, failures


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Return median, quartiles and number of rounds."""
    if len(values) == 1:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "q1": low, "q3": high, "rounds": len(values)}


def ratios(times: Mapping[str, Sequence[float]], reference: str) -> dict[str, dict[str, float | int]]:
    """Return each case's time over the reference's of the same round: name -> median and quartiles of the ratios."""
    base = times[reference]
    return {
        name: spread([one / other for one, other in zip(values, base, strict=True)]) for name, values in times.items()
    }


def finisher(device: str) -> Callable[[], object]:
    """Return what waits until the device has done its work."""
    if device == "cpu":
        return lambda: None
    import torch

    return torch.cuda.synchronize


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what a time depends on; no host name, no user and no path."""
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "ram_gib": _ram_gib(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _ram_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def peak_mib() -> float | None:
    """Return this process's peak resident memory in MiB, or None where the system does not tell.

    On Linux `ru_maxrss` starts at what the parent held when it started this process, so a child of a large process
    would report its parent; the high-water mark in /proc belongs to this program alone.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found.group(1)) / 2**10
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def write(name: str, result: Mapping[str, Any], folder: Path | None = None, *, device: str = "cpu") -> Path:
    """Write <name>-<cpu or gpu>.json with the machine beside the result; return where."""
    facts = machine(device)
    chip = facts["cpu"] if device == "cpu" else facts["cuda"]
    slug = re.sub(r"[^a-z0-9]+", "-", str(chip).lower()).strip("-")
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{slug}.json"
    content = {"benchmark": name, "machine": facts, **result}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def table(rows: Sequence[Row], columns: Mapping[str, str | Callable[[Row], Any]], style: Style = "text") -> str:
    """Lay rows out under the columns (title -> key of the row, or function of it), numbers to the right."""
    titles = list(columns)
    cells = [
        [_cell(row.get(pick) if isinstance(pick, str) else pick(row)) for pick in columns.values()] for row in rows
    ]
    left = [any(not re.match(r"[-+]?\d|-$", line[k]) for line in cells if line[k]) for k in range(len(titles))]
    widths = [max([len(title), *(len(line[k]) for line in cells)]) for k, title in enumerate(titles)]

    def lay(line: Sequence[str]) -> list[str]:
        return [
            text.ljust(wide) if words else text.rjust(wide)
            for text, wide, words in zip(line, widths, left, strict=True)
        ]

    if style == "markdown":
        rule = ["-" * wide if words else "-" * (wide - 1) + ":" for wide, words in zip(widths, left, strict=True)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [lay(titles), rule, *map(lay, cells)])
    rule = ["-" * wide for wide in widths]
    return "\n".join("  ".join(line).rstrip() for line in [lay(titles), rule, *map(lay, cells)])


def _cell(value: Any) -> str:
    """Write a number to three figures, a spread as its median with the quartiles, and nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        if value["rounds"] == 1:
            return _cell(value["median"])
        return f"{_cell(value['median'])} ({_cell(value['q1'])}-{_cell(value['q3'])})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value == 0:
            return "0"
        digits = max(0, 2 - int(f"{value:e}".split("e")[1]))
        return f"{value:,.{digits}f}" if digits < 7 else f"{value:.2e}"
    return str(value)


def scaled(times: Mapping[str, Sequence[float]], factor: Mapping[str, float]) -> dict[str, list[float]]:
    """Return the times multiplied by each case's factor (1 where none is given)."""
    return {name: [one * factor.get(name, 1.0) for one in values] for name, values in times.items()}
