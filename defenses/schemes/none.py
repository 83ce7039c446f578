"""No privacy: plain training on shuffled lots, the control that every claim is measured against."""

from dataclasses import dataclass
from typing import Any

import dp_accounting

from defenses.defense import Defense, History


@dataclass(frozen=True)
class NoDefense(Defense):
    """Train without any protection; nothing is promised, so nothing can be contradicted."""

    name = "none"
    title = "no protection"
    paper = "none"

    def event(self, history: History) -> Any:
        """Return the non-private event."""
        return dp_accounting.NonPrivateDpEvent()
