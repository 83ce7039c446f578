"""Audit what a trained model leaks about its training records, and check it against the privacy it claims.

The names below are the public interface. Each is loaded when it is first used, so importing this package loads neither
torch nor NumPy.

Examples:
    >>> from pathlib import Path
    >>> import auditor
    >>> context = auditor.RunContext(auditor.Workspace(Path(".auditor")))  # doctest: +SKIP
    >>> auditor.run_audit(auditor.load_plan(Path("plan.toml")), context).report.verdict  # doctest: +SKIP
    'leaks'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.audit import Audit as Audit
    from auditor.audit import run_audit as run_audit
    from auditor.canaries.planting import Planted as Planted
    from auditor.canaries.planting import plant as plant
    from auditor.compare.plan import ComparePlan as ComparePlan
    from auditor.compare.plan import load_compare_plan as load_compare_plan
    from auditor.compare.run import run_comparison as run_comparison
    from auditor.context import RunContext as RunContext
    from auditor.datasets import load as load_data
    from auditor.plan.plan import Plan as Plan
    from auditor.plan.plan import load_plan as load_plan
    from auditor.plan.plan import parse_plan as parse_plan
    from auditor.report_files import write_audit as write_audit
    from auditor.targets.art_classifier import from_art as from_art
    from auditor.targets.art_classifier import record_scores as record_scores
    from auditor.tuning.plan import TunePlan as TunePlan
    from auditor.tuning.plan import load_tune_plan as load_tune_plan
    from auditor.tuning.run import run_tuning as run_tuning
    from auditor.workspace import Workspace as Workspace
    from defenses.records import Records as Records
    from reports.exit_codes import ExitCode as ExitCode
    from reports.gate.apply_policy import apply_policy as apply_policy
    from reports.gate.policy import Policy as Policy
    from reports.gate.policy import load_policy as load_policy
    from reports.records.report import Report as Report

_HOMES = {
    "Audit": "auditor.audit",
    "ComparePlan": "auditor.compare.plan",
    "ExitCode": "reports.exit_codes",
    "Plan": "auditor.plan.plan",
    "Planted": "auditor.canaries.planting",
    "Policy": "reports.gate.policy",
    "Records": "defenses.records",
    "Report": "reports.records.report",
    "RunContext": "auditor.context",
    "TunePlan": "auditor.tuning.plan",
    "Workspace": "auditor.workspace",
    "apply_policy": "reports.gate.apply_policy",
    "from_art": "auditor.targets.art_classifier",
    "load_compare_plan": "auditor.compare.plan",
    "load_data": "auditor.datasets:load",
    "load_plan": "auditor.plan.plan",
    "load_policy": "reports.gate.policy",
    "load_tune_plan": "auditor.tuning.plan",
    "parse_plan": "auditor.plan.plan",
    "plant": "auditor.canaries.planting",
    "record_scores": "auditor.targets.art_classifier",
    "run_audit": "auditor.audit",
    "run_comparison": "auditor.compare.run",
    "run_tuning": "auditor.tuning.run",
    "write_audit": "auditor.report_files",
}

__all__ = [
    "Audit",
    "ComparePlan",
    "ExitCode",
    "Plan",
    "Planted",
    "Policy",
    "Records",
    "Report",
    "RunContext",
    "TunePlan",
    "Workspace",
    "apply_policy",
    "from_art",
    "load_compare_plan",
    "load_data",
    "load_plan",
    "load_policy",
    "load_tune_plan",
    "parse_plan",
    "plant",
    "record_scores",
    "run_audit",
    "run_comparison",
    "run_tuning",
    "write_audit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditor' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), other or name)


def __dir__() -> list[str]:
    return __all__
