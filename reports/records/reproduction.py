"""The record of a paper's experiment done again: every figure that the paper prints, beside ours.

A figure that does not come out is written down as such, with what was tried; nothing is left out for that.
"""

import enum
from typing import Self

from pydantic import Field, model_validator

from reports.records.estimate import Estimate, Strict

REPRODUCTION_VERSION = "1.0"


class Outcome(enum.StrEnum):
    """How our figure compares with the paper's."""

    REPRODUCED = "reproduced"  # within the tolerance that was fixed beforehand
    NOT_REPRODUCED = "not reproduced"
    NOT_COMPARABLE = "not comparable"  # another setting, or the paper does not say enough
    OURS_ALONE = "ours alone"  # the paper prints no figure for it


class Row(Strict):
    """One figure.

    `paper` is what the paper prints, null where it prints nothing; `ours` is null where it was not measured, and `note`
    says why. `tolerance` is what was allowed between the two, in the same unit, fixed before ours was known. `at_most`
    says that the paper's figure is a limit: ours comes out where it is no more than the tolerance above it.
    """

    what: str
    setting: str
    paper: float | None
    ours: Estimate | None
    tolerance: float | None = None
    at_most: bool = False
    outcome: Outcome
    note: str = ""

    @model_validator(mode="after")
    def _nothing_unsaid(self) -> Self:
        if self.ours is None and not self.note:
            raise ValueError(f"{self.what}: a figure that was not measured says why in `note`")
        if self.outcome is Outcome.REPRODUCED and (self.paper is None or self.ours is None or self.tolerance is None):
            raise ValueError(f"{self.what}: 'reproduced' needs the paper's figure, ours and a tolerance")
        return self


class Series(Strict):
    """One line of a chart; all lists have one length."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    paper: bool = Field(default=False, description="whether the points are the paper's")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) != 1:
            raise ValueError(f"{self.name}: lists have lengths {sorted(lengths)}; they must have one")
        return self


class Chart(Strict):
    """One figure with axes."""

    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    series: list[Series]


class Reproduction(Strict):
    """One paper's experiment, done again.

    `scale` is the share of the paper's own size (records, epochs) at which it ran, `choices` what had to be chosen
    where the paper is silent, `tried` what was tried for figures that did not come out.
    """

    version: str = REPRODUCTION_VERSION
    paper: str
    title: str
    scale: float = Field(gt=0, le=1)
    setting: str
    rows: list[Row]
    charts: list[Chart] = Field(default_factory=list)
    choices: list[str] = Field(default_factory=list)
    tried: list[str] = Field(default_factory=list)
    hardware: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, ge=0)


def compared(
    what: str,
    setting: str,
    *,
    paper: float | None,
    ours: Estimate | None,
    tolerance: float | None = None,
    at_most: bool = False,
    note: str = "",
) -> Row:
    """Return a row whose outcome follows from the figures.

    Args:
        what: Name of the figure.
        setting: Under which setting.
        paper: The paper's figure, None where it prints none.
        ours: Ours, None where it was not measured.
        tolerance: Greatest difference at which it counts as reproduced; None where the two cannot be compared.
        at_most: Whether the paper's figure is a limit, below which ours may lie as far as it likes.
        note: What to know about it.
    """
    if paper is None:
        outcome = Outcome.OURS_ALONE
    elif ours is None or ours.value is None or tolerance is None:
        outcome = Outcome.NOT_COMPARABLE
    else:
        above = ours.value - paper
        near = (above if at_most else abs(above)) <= tolerance
        outcome = Outcome.REPRODUCED if near else Outcome.NOT_REPRODUCED
    return Row(
        what=what, setting=setting, paper=paper, ours=ours, tolerance=tolerance, at_most=at_most, outcome=outcome,
        note=note,
    )  # fmt: skip
