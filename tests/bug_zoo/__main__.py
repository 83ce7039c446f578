"""How often each check flags each broken implementation, and the correct one: a Markdown table on standard output.

Every battery is written to a file as soon as it is done, and one that is there is not run again: stop it and go on.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import auditor.debug_dp
from auditor.debug_dp.battery import Status, run_battery
from auditor.debug_dp.check import checks
from auditor.debug_dp.implementation import find_implementation
from defenses.engine.code_digest import digest_of_folders

from . import CORRECT, described, names, seen_by

OUT = Path(".auditor/bug-zoo.jsonl")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bug_zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="MODULE:FUNCTION of the zoo; all by default")
    parser.add_argument("--repeats", type=int, default=5, help="batteries per implementation")
    parser.add_argument("--runs", type=int, default=200, help="repeated runs on each side of a battery")
    parser.add_argument("--skip", action="append", default=[], help="check to leave out")
    parser.add_argument("--only", action="append", default=[], help="check to run alone")
    parser.add_argument("--meant", action="store_true", help="run only the checks that are meant to see the mistake")
    parser.add_argument("--out", type=Path, default=OUT, help="where batteries are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = given.names or [*([] if given.meant else CORRECT), *names()]
    done = {}
    for name in chosen:
        only = seen_by(name) if given.meant else given.only
        done[name] = collect(name, given.repeats, runs=given.runs, only=only, skip=given.skip, out=given.out)
    sys.stdout.write(table(done) + "\n")


def collect(name, repeats, *, runs, only=(), skip=(), out=OUT):
    """One battery for each seed; those of an earlier run with the same settings and code are taken from the file."""
    settings = {"name": name, "runs": runs, "only": sorted(only), "skip": sorted(skip), "code": code()}
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {row["seed"]: row for row in rows if all(row.get(key) == settings[key] for key in settings)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(repeats):
        if seed not in done:
            done[seed] = settings | {"seed": seed} | measure(name, seed, runs, only, skip)
            with out.open("a") as file:
                file.write(json.dumps(done[seed]) + "\n")
            found = ", ".join(done[seed]["violated"]) or "nothing"
            sys.stderr.write(f"{name} {seed}: {found} ({done[seed]['seconds']:.1f} s)\n")
    return [done[seed] for seed in range(repeats)]


def measure(name, seed, runs, only, skip):
    """One battery; the implementation draws its noise from torch's global generator, seeded once before it."""
    torch.manual_seed(seed)
    began = time.monotonic()
    found = run_battery(
        find_implementation(f"{__package__}.{name}"),
        runs=runs,
        only=only,
        skip=skip,
        budget=600.0,
        rng=np.random.default_rng(seed),
    )
    return {
        "violated": [result.name for result in found.violated],
        "crashed": [result.name for result in found.results if result.status is Status.CRASHED],
        "seconds": time.monotonic() - began,
    }


def code():
    """Digest of the battery and the zoo: what was measured of other code is not taken."""
    return digest_of_folders(Path(auditor.debug_dp.__path__[0]), Path(__file__).parent)[:16]


def table(done):
    order = [check.name for check in checks()]
    lines = ["| implementation | mistake | flagged | by, with the share of repeats |", "| --- | --- | --- | --- |"]
    for name, rows in done.items():
        counts = Counter(check for row in rows for check in row["violated"])
        meant = () if name in CORRECT else seen_by(name)
        shares = [
            f"{'**' if check in meant else ''}{check}{'**' if check in meant else ''} {counts[check] / len(rows):.0%}"
            for check in order
            if counts[check]
        ]
        flagged = sum(bool(row["violated"]) for row in rows)
        what = "none" if name in CORRECT else described(name).rstrip(".")
        lines.append(f"| `{name}` | {what} | {flagged} of {len(rows)} | {', '.join(shares) or 'nothing'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
