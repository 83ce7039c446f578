"""Membership inference: was this record in the training set?

The scoring functions take arrays and are public; they are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.membership.lira import lira_scores as lira_scores
    from attacks.membership.rmia import rmia_scores as rmia_scores
    from attacks.membership.signals import logit_confidence as logit_confidence

_HOMES = {"lira_scores": "lira", "rmia_scores": "rmia", "logit_confidence": "signals"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
