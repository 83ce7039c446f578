"""Hundreds of hostile files through the command line: each is refused in a sentence, and nothing in it is executed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FEWEST = {
    "checkpoint": 80,
    "array": 40,
    "score file": 40,
    "table": 50,
    "images": 30,
    "plan": 40,
    "policy": 15,
    "report": 25,
    "sealed": 20,
    "work folder": 10,
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.timeout(3600)
def test_hundreds_of_hostile_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """None is executed or takes more than 60 s or 4 GiB; each ends in exit code 2 with one line on standard error."""
    paths = [ROOT, ROOT / "tests", ROOT / "tests" / "auditor" / "hostile", ROOT / "tests" / "reports"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "OMP_NUM_THREADS": "1",
    }
    root = tmp_path / "campaign"
    root.mkdir()
    program = Path(__file__).with_name("hostile_files.py")
    done = subprocess.run([sys.executable, str(program), str(root)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((root / "results.json").read_text())
    assert not found["executed"]
    assert not list(root.glob("executed*"))
    assert not found["dead"], "programs that Python itself does not run show nothing"
    counts = Counter(one["kind"] for one in found["outcomes"])
    assert all(counts[kind] >= fewest for kind, fewest in FEWEST.items()), counts
    assert not [one for one in found["outcomes"] if one["faults"]], done.stdout
