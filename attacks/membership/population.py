"""Population attack: how few records outside training does the model fit as well as this one?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from attacks.capabilities import Capability
from attacks.membership.signals import logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]


def population_scores(
    signal: npt.NDArray[Any],
    y: npt.NDArray[Any],
    population: npt.NDArray[Any],
    population_y: npt.NDArray[Any],
    *,
    smallest: int = 30,
) -> Float64Array:
    """Score candidates by the share of population records of their class with a lower signal.

    One minus the score is an empirical p-value of "not a member". Among equal shares, the higher signal ranks higher. A
    class with fewer than `smallest` population records is compared with all of the population.

    Args:
        signal: (n,) signal of each candidate under the target; higher where the model fits it better.
        y: (n,) their classes.
        population: (z,) the same signal of records outside training.
        population_y: (z,) their classes.
        smallest: Fewest population records of a class that are a comparison of their own, at least 1.

    Returns:
        (n,) float64 in [0, 1 + 1/z), higher = member.

    Raises:
        ValueError: If there is no population, shapes differ, or smallest is below 1.

    Examples:
        >>> population_scores(np.array([0.5, 9.0]), np.zeros(2), np.array([0.0, 1.0]), np.zeros(2))
        array([0.5 , 1.25])

    Source: Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models", Attack P.
    Deviations: shares instead of a threshold, so that one run serves every false positive rate; and shares within the
    class, because with one comparison for all records the ranking would be that of the loss threshold.
    """
    if smallest < 1:
        raise ValueError(f"smallest is {smallest}; a comparison needs at least 1 record")
    if signal.shape != y.shape or population.shape != population_y.shape or not len(population):
        raise ValueError(
            f"signals are {signal.shape} with labels {y.shape}, the population's {population.shape} with "
            f"{population_y.shape}; give one label each, and at least one population record"
        )
    share = _share_below(signal, population)
    for label in np.unique(y):
        own = population[population_y == label]
        if len(own) >= smallest:
            share[y == label] = _share_below(signal[y == label], own)
    # A share moves in steps of at least 1/z and is monotone in the signal, which orders records within one step.
    return share + (rankdata(signal) - 1) / max(1, len(signal)) / len(population)


def _share_below(signal: npt.NDArray[Any], population: npt.NDArray[Any]) -> Float64Array:
    return np.asarray(np.searchsorted(np.sort(population), signal, side="left") / len(population))


@dataclass(frozen=True)
class Population(Attack):
    """Compare each record's confidence with those of population records of its class; no shadow models.

    Attributes:
        smallest: Fewest population records of a class that are a comparison of their own, at least 1.
    """

    smallest: int = 30

    name = "population"
    title = "Population attack"
    paper = "Ye et al. 2022, Enhanced Membership Inference Attacks against Machine Learning Models"
    requires = ThreatModel(frozenset({Capability.LOGITS}), population=True)

    def __post_init__(self) -> None:
        if self.smallest < 1:
            raise ValueError(f"smallest is {self.smallest}; a comparison needs at least 1 record")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the share of population records that the model fits worse than each candidate."""
        candidates, population = view.candidates, view.population
        scores = population_scores(
            logit_confidence(view.logits(candidates.x), candidates.y),
            candidates.y,
            logit_confidence(view.logits(population.x), population.y),
            population.y,
            smallest=self.smallest,
        )
        counts = np.bincount(population.y, minlength=candidates.classes)
        pooled = int((counts[np.unique(candidates.y)] < self.smallest).sum())
        remark = f"{pooled} classes have fewer than {self.smallest} population records and were compared with all."
        return MembershipScores(scores, (remark,) if pooled else ())
