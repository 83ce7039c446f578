"""Reconstruction and inference attacks on the plans of examples/reconstruction: what each finds, and in what time.

Each row is an attack of one audit: on an unprotected model or under DP-SGD, beside what guessing reaches and what the
same attack finds on the control, an unprotected model trained alike. Data are searched for in the folder that
AUDITOR_DATA names. What is trained and claimed is kept, so that the command goes on where it was stopped; seconds are
those of the first run of each attack.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import PARTS, Settings, Style, note, table

NAME = "reconstruction"
PLANS = Path(__file__).parents[1] / "examples" / "reconstruction"
MEASURES = ("auc", "guess_advantage", "fidelity_advantage")
QUICK = """
title = "digits, no protection"
seed = 1
[data]
source = "digits"
pool = 200
[model]
architecture = "mlp"
[training]
epochs = 5
batch_size = 20
learning_rate = 0.1
[gradients]
victims = 4
[[attacks]]
name = "model_inversion"
[[attacks]]
name = "first_layer"
"""


def run(settings: Settings) -> dict[str, Any]:
    return {
        "settings": {"device": settings.device, "quick": settings.quick},
        "unit": "measure in its own unit, seconds",
        "rows": list(_rows(settings)),
    }


def show(result: dict[str, Any], style: Style) -> str:
    columns: dict[str, str | Callable[[Any], Any]] = {
        "audit": "audit",
        "attack": "attack",
        "attacked": "about",
        "measure": "measure",
        "found": lambda row: _with_interval(row["found"]),
        "guessing": "guessing",
        "control": lambda row: _with_interval(row["control"]),
        "copies seen from": lambda row: row["least_seen"],
        "seconds": "seconds",
    }
    return table(result["rows"], columns, style)


def _rows(settings: Settings) -> Iterator[dict[str, Any]]:
    from auditor.audit import run_audit
    from auditor.context import RunContext
    from auditor.plan.plan import load_plan, parse_plan
    from auditor.workspace import Workspace
    from reports.measures import measure as about
    from reports.records.report import AttackStatus

    plans = [parse_plan(QUICK)] if settings.quick else [load_plan(path) for path in sorted(PLANS.glob("*.toml"))]
    named = os.environ.get("AUDITOR_DATA")
    for plan in plans:
        note(f"  {plan.title}")
        context = RunContext(
            Workspace(PARTS / NAME), plan_folder=PLANS, data_dir=Path(named) if named else None, device=settings.device
        )
        report = run_audit(plan, context).report
        for attack in report.attacks:
            row = {"audit": plan.title, "attack": attack.title, "about": attack.about}
            if attack.status is not AttackStatus.RAN:
                yield row | {"measure": attack.reason, "found": None, "control": None, "guessing": None,
                             "least_seen": None, "seconds": None}  # fmt: skip
                continue
            measure = next(name for name in MEASURES if name in attack.measures)
            control = attack.control.get(measure)
            yield row | {
                "measure": measure,
                "found": attack.measures[measure].model_dump(),
                "control": None if control is None else control.model_dump(),
                "guessing": about(measure).baseline,
                "least_seen": None if attack.copies is None else attack.copies.least_seen,
                "seconds": report.timing.seconds[f"attack {attack.name}"],
            }


def _with_interval(found: dict[str, Any] | None) -> str | None:
    if found is None or found["value"] is None:
        return None
    return f"{found['value']:.3f} ({found['low']:.3f}-{found['high']:.3f})"
