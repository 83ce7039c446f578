"""Run a comparison: one audit after the other, each resumable by itself, and one row for each."""

import datetime
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from auditor.audit import run_audit
from auditor.compare.plan import Cell, ComparePlan
from auditor.context import RunContext
from auditor.files.paths import plan_without_paths
from auditor.plan.resolve import (
    parameters_of,
    resolve_architecture,
    resolve_attacks,
    resolve_defense,
)
from auditor.reasons import reason
from auditor.report_files import clear, write_audit
from auditor.targets.trained_here import promised_steps
from auditor.verdicts.epsilon_claims import CLAIM, PROOF, REBUILT, STEP
from defenses.errors import AuditError, TrainingError
from defenses.progress import Progress
from reports.records.comparison import ComparedRun, Comparison
from reports.records.report import Report

AUC = "auc"

OnRun = Callable[[int, int, ComparedRun], None]


def run_comparison(
    plan: ComparePlan, context: RunContext, folder: Path, *, on_run: OnRun = lambda number, count, run: None
) -> Comparison:
    """Audit every scheme at every budget on the same records.

    Each audit writes its own report into the folder. One whose training fails is a row with the reason; the others go
    on. What is wrong with the plan is found before anything is trained.

    Args:
        plan: What to compare.
        context: Where to work and with what; models that are there already are not trained again.
        folder: Where the reports go.
        on_run: Told the number of audits done, their count, and the row of the last.

    Returns:
        The record.

    Raises:
        AuditError: If a plan does not fit; nothing has been trained then.
    """
    for cell in plan.cells:
        resolve_attacks(cell.plan)
        resolve_architecture(cell.plan, allow_code=context.allow_code)
        resolve_defense(cell.plan)
    cells = [_with_eyes(cell, context) for cell in plan.cells]
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    runs: list[ComparedRun] = []
    reports: list[Report] = []
    for number, cell in enumerate(cells):
        run, report = _run(cell, context, folder, number, len(cells))
        runs.append(run)
        reports += [] if report is None else [report]
        on_run(number + 1, len(plan.cells), run)
    first = reports[0] if reports else None
    return Comparison(
        title=plan.title,
        data=first.subject.data if first else "",
        model=first.subject.model if first else "",
        members=first.subject.members if first else 0,
        nonmembers=first.subject.nonmembers if first else 0,
        runs=runs,
        plan=plan_without_paths(plan.content),
        plan_digest=plan.digest,
        device=first.provenance.device if first else context.place,
        versions=first.provenance.versions if first else {},
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
    )


def _with_eyes(cell: Cell, context: RunContext) -> Cell:
    """Return a cell whose plan watches steps where they can be tested."""
    promise = promised_steps(cell.plan, allow_code=context.allow_code)
    if promise is None:
        return cell
    watched = {name: part for name, part in cell.watched.items() if name != "prior_aware" or not promise.moves}
    return replace(cell, plan=cell.plan.model_copy(update=watched))


def _run(cell: Cell, context: RunContext, folder: Path, number: int, count: int) -> tuple[ComparedRun, Report | None]:
    defense = resolve_defense(cell.plan)
    base = ComparedRun(
        label=cell.label,
        scheme=defense.title,
        parameters=parameters_of(defense),
        varied=cell.varied,
        value=cell.value,
        reason="not run yet",
    )

    def within(progress: Progress) -> None:
        context.on_progress(replace(progress, stage=f"{number + 1} of {count}, {base.name}: {progress.stage}"))

    name = re.sub(r"[^a-z0-9]+", "-", f"{number + 1:02d}-{base.name}".lower()).strip("-")
    clear(folder / name)  # an earlier run's report is not this one's
    clock = time.perf_counter()
    try:
        audit = run_audit(cell.plan, replace(context, on_progress=within))
    except TrainingError as error:
        return base.model_copy(update={"reason": reason(error), "seconds": time.perf_counter() - clock}), None
    except AuditError as error:
        raise type(error)(f"{base.name}: {error}") from error
    report = audit.report
    write_audit(audit, folder / name)
    best = max(
        (attack for attack in report.attacks if AUC in attack.measures),
        key=lambda attack: attack.measures[AUC].value or 0.0,
        default=None,
    )
    return base.model_copy(
        update={
            "reason": None,
            "epsilons": report.epsilons,
            "findings": [finding for finding in report.findings if finding.code in (CLAIM, PROOF, STEP, REBUILT)],
            "accuracy_train": report.subject.accuracy_train,
            "accuracy_holdout": report.subject.accuracy_holdout,
            "leak": None if best is None else best.measures[AUC],
            "leak_by": None if best is None else best.title,
            "seconds_training": report.timing.seconds.get("training the target"),
            "seconds": time.perf_counter() - clock,
            "verdict": report.verdict,
            "exit_code": int(report.exit_code),
            "report": f"{name}/report.html",
        }
    ), report
