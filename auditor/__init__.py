"""Plan, train, attack, judge, record: the audit of a trained model, as a Python API and a command line.

Names are loaded when they are first used, so that importing this package does not load torch.
"""

import importlib
from typing import Any

_HOMES = {
    "Audit": "auditor.audit",
    "Plan": "auditor.plan.plan",
    "RunContext": "auditor.context",
    "Workspace": "auditor.workspace",
    "load_plan": "auditor.plan.plan",
    "run_audit": "auditor.audit",
    "write_audit": "auditor.report_files",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditor' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
