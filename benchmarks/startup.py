"""Seconds until the command line answers, and whether it loaded torch to do so."""

import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Settings, Style, interleave, spread, table, try_out

NAME = "startup"
CALL = "import sys; from auditor.cli.main import main; sys.argv[0] = 'auditor'; main()"  # as the installed script does
COMMANDS: dict[str, Sequence[str]] = {
    'python -c "pass"': ("-c", "pass"),
    'python -c "import auditor"': ("-c", "import auditor"),
    "auditor --help": ("-c", CALL, "--help"),
    "auditor gate --help": ("-c", CALL, "gate", "--help"),
}


def run(settings: Settings) -> dict[str, Any]:
    rounds = settings.rounds(full=5, quick=3)
    cases, failures = try_out({name: functools.partial(_call, arguments) for name, arguments in COMMANDS.items()})
    times = interleave(cases, rounds)
    rows = [
        {
            "command": name,
            "seconds": spread(times[name]) if name in times else None,
            "loads_torch": loads_torch(COMMANDS[name]) if name in times else None,
            "failure": failures.get(name),
        }
        for name in COMMANDS
    ]
    return {"settings": {"rounds": rounds, "quick": settings.quick}, "unit": "seconds per process", "rows": rows}


def _call(arguments: Sequence[str], *options: str) -> str:
    """Run this Python and return what it wrote to standard error."""
    command = [sys.executable, *options, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [""]
        raise RuntimeError(f"exit code {done.returncode}: {lines[-1]}")
    return done.stderr


def loads_torch(arguments: Sequence[str]) -> bool:
    """Tell whether the command imports torch."""
    return names_torch(_call(arguments, "-X", "importtime"))


def names_torch(written: str) -> bool:
    """Tell whether torch is among the modules that `-X importtime` wrote."""
    return re.search(r"\|\s+torch\s*$", written, re.MULTILINE) is not None


def show(result: dict[str, Any], style: Style) -> str:
    columns = {
        "command": "command",
        "seconds (quartiles)": lambda row: row["seconds"] or f"fails: {row['failure']}",
        "loads torch": "loads_torch",
    }
    return table(result["rows"], columns, style)
