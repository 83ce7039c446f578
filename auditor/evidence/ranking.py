"""Candidates ranked by how likely they were members, measured over independent units."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.statistics.membership import advantage, auc, positive_predictive_value, tpr_at_fpr
from auditor.statistics.units import Units
from defenses.records import BoolArray, IntArray
from reports.measures import ADVANTAGE, AUC, measure, ppv_name, tpr_name
from reports.records.report import Estimate

FALSE_POSITIVE_RATES = (0.01, 0.001)
PRIORS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Ranking:
    """Scores of candidates beside the truth.

    Attributes:
        scores: (m,) higher means more likely a member.
        included: (m,) who was a member.
        groups: (m,) integers, equal for candidates of one independent unit; None where each is one.
    """

    scores: npt.NDArray[np.float64]
    included: BoolArray
    groups: IntArray | None = None

    @property
    def by_unit(self) -> tuple[npt.NDArray[np.float64], BoolArray, str]:
        """Scores (u,) and truth (u,) of each unit, and what a unit is called; a unit scores as its highest record."""
        units = Units.of(self.groups)
        return units.highest(self.scores), units.any(self.included), units.name

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return AUC, advantage, and rates and predictive values at the usual points and at those that are wanted.

        Args:
            level: Confidence of each interval, in (0, 1).
            wanted: Names of measures, such as "tpr_at_fpr_0.05".
        """
        scores, included, unit = self.by_unit
        found = {
            AUC: auc(scores, included, level=level, unit=unit),
            ADVANTAGE: advantage(scores, included, level=level, unit=unit),
        }
        asked = [measure(name) for name in wanted]
        rates = {*FALSE_POSITIVE_RATES, *(about.fpr for about in asked if about.fpr is not None)}
        for fpr in sorted(rates, reverse=True):
            found[tpr_name(fpr)] = tpr_at_fpr(scores, included, fpr=fpr, level=level, unit=unit)
        at_one_percent = found[tpr_name(FALSE_POSITIVE_RATES[0])]
        priors = {*PRIORS, *(about.prior for about in asked if about.prior is not None)}
        for prior in sorted(priors, reverse=True):
            found[ppv_name(prior)] = positive_predictive_value(at_one_percent, fpr=FALSE_POSITIVE_RATES[0], prior=prior)
        return found
