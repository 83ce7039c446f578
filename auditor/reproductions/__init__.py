"""The source papers' own experiments, one file each, done again: what the paper prints, beside what comes out here."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from auditor.context import RunContext
    from reports.records.reproduction import Reproduction


class Experiment(Protocol):
    """What a file of this folder is.

    Attributes:
        DEFAULT_SCALE: Share of the paper's own size that two cores can do in minutes, in (0, 1].
    """

    DEFAULT_SCALE: float

    def reproduce(self, scale: float, context: "RunContext") -> "Reproduction":
        """Run the experiment.

        Args:
            scale: Share of the paper's own size, in (0, 1].
            context: Where to work and with what; what was trained before is not trained again.
        """
        ...


def experiments() -> dict[str, Experiment]:
    """Return every experiment by its paper's short name, such as P1."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name[1:].isdigit()]
    return {name.upper(): cast("Experiment", importlib.import_module(f"{__name__}.{name}")) for name in sorted(names)}
