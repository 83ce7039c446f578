"""How time and memory grow with models, records and epochs; every point in a fresh process, so that peaks are its own.

A point trains non-private models in lots of 64, half of the pool in each, in one process and uncompiled. The first of
its models (up to 16) are trained before the clock starts, so that what a process pays once (imports, tracing, starting
threads) is not in it; `first_seconds` is what that first call took.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Settings, Style, finisher, note, peak_mib, spread, table

NAME = "scaling"
MODELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RECORDS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
EPOCHS = (1, 2, 4, 8, 16)
FIXED = {"models": 8, "records": 4_000, "epochs": 2}
QUICK_FIXED = {"models": 2, "records": 1_000, "epochs": 1}

Point = dict[str, Any]


def points(settings: Settings) -> list[Point]:
    """Return what is measured, in the order of the table."""
    fixed = QUICK_FIXED if settings.quick else FIXED
    shared = {**fixed, "width": settings.width, "device": settings.device}
    sweeps: dict[str, Sequence[int]] = {"models": MODELS, "records": RECORDS, "epochs": EPOCHS}
    if settings.quick:
        sweeps = {"models": (1, 2, 4), "records": (2_000,), "epochs": (2,)}
    if settings.models:
        sweeps["models"] = sorted(settings.models)
    found = [
        {**shared, "network": "mlp", "sweep": sweep, sweep: value}
        for sweep, values in sweeps.items()
        for value in values
    ]
    few = sweeps["models"][:2] if settings.quick else sweeps["models"]
    return found + [{**shared, "network": "cnn", "sweep": "models", "models": value} for value in few]


def run(settings: Settings) -> dict[str, Any]:
    rounds = settings.rounds(full=1, quick=1)
    wanted = points(settings)
    measured: list[list[Point]] = [[] for _ in wanted]
    for number in range(rounds):
        for k, point in enumerate(wanted):
            note(
                f"scaling: round {number + 1} of {rounds}, {point['network']}, {point['sweep']} {point[point['sweep']]}"
            )
            measured[k].append(_in_fresh_process(point))
    rows = [_row(point, found) for point, found in zip(wanted, measured, strict=True)]
    return {
        "settings": {"rounds": rounds, "quick": settings.quick, "width": settings.width, "batch_size": 64},
        "unit": "seconds, MiB; records is the pool, of which a model trains on half",
        "rows": rows,
        "growth": growth(rows),
    }


def _in_fresh_process(point: Point) -> Point:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", json.dumps(point)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failure": lines[-1][:200]}
    answer: Point = json.loads(done.stdout)
    return answer


def _row(point: Point, found: list[Point]) -> dict[str, Any]:
    row = {key: point[key] for key in ("network", "sweep", "models", "records", "epochs")}
    failure = next((one["failure"] for one in found if "failure" in one), None)
    if failure is not None:
        return row | {"seconds": None, "failure": failure}
    seconds = spread([one["seconds"] for one in found])
    visits = point["models"] * (point["records"] // 2) * point["epochs"]
    row |= {
        "seconds": seconds,
        "seconds_per_model": seconds["median"] / point["models"],
        "microseconds_per_record_visit": 1e6 * seconds["median"] / visits,
        "first_seconds": spread([one["first_seconds"] for one in found])["median"],
    }
    for key in ("peak_mib", "before_mib", "device_peak_mib"):
        values = [one[key] for one in found if one.get(key) is not None]
        row[key] = max(values) if values else None
    return row | {"failure": None}


def growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the exponent of each sweep's upper half, seconds ~ size ** exponent: 1 is linear."""
    found = []
    for network, sweep in dict.fromkeys((row["network"], row["sweep"]) for row in rows):
        here = [row for row in rows if (row["network"], row["sweep"]) == (network, sweep) and row["seconds"]]
        upper = here[-(len(here) // 2 + 1) :]
        if len(upper) < 2:
            continue
        x = [math.log(row[sweep]) for row in upper]
        y = [math.log(row["seconds"]["median"]) for row in upper]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
        found.append(
            {"network": network, "sweep": sweep, "from": upper[0][sweep], "to": upper[-1][sweep], "exponent": slope}
        )
    return found


def show(result: dict[str, Any], style: Style) -> str:
    columns = {
        "network": "network",
        "sweep": "sweep",
        "models": "models",
        "pool": "records",
        "epochs": "epochs",
        "seconds (quartiles)": lambda row: row["seconds"] or f"fails: {row['failure']}",
        "s per model": "seconds_per_model",
        "us per record visit": "microseconds_per_record_visit",
        "first call": "first_seconds",
        "MiB before": "before_mib",
        "peak MiB": "peak_mib",
    }
    sizes = {"network": "network", "sweep": "sweep", "from": "from", "to": "to", "exponent (1 is linear)": "exponent"}
    return table(result["rows"], columns, style) + "\n\n" + table(result["growth"], sizes, style)


def measure(point: Point) -> Point:
    """Train what the point says in this process."""
    from benchmarks.shadow_training import NETS, make_work, pool
    from defenses.engine.training import train

    architecture = next(net for net in NETS.values() if net.name == point["network"])
    shape = {"models": point["models"], "epochs": point["epochs"], "private": False, "device": point["device"]}
    work = make_work(architecture, pool(point["records"]), **shape)
    finish, before = finisher(point["device"]), peak_mib()
    found: Point = {}
    for name, part in (("first_seconds", work.first(16)), ("seconds", work)):
        finish()
        start = time.perf_counter()
        train(part.job, part.included, part.seeds, device=point["device"], width=point["width"])
        finish()
        found[name] = time.perf_counter() - start
    found |= {"before_mib": before, "peak_mib": peak_mib()}
    if point["device"] != "cpu":
        import torch

        found["device_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
