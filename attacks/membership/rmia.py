"""RMIA: a record's likelihood ratio compared with those of records that are surely not members."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from attacks.capabilities import Capability
from attacks.image_views import check_queries
from attacks.membership.signals import probability
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]

_TINY = 1e-300  # keeps a ratio of probabilities finite; far below any probability that float64 logits can give


def rmia_scores(
    target_probability: npt.NDArray[Any],
    shadow_probability: npt.NDArray[Any],
    included: npt.NDArray[np.bool_],
    population_target: npt.NDArray[Any],
    population_shadow: npt.NDArray[Any],
    *,
    online: bool,
    gamma: float = 1.0,
    a: float = 0.3,
) -> Float64Array:
    """Score candidates by RMIA: the share of population records z whose ratio is beaten by a factor gamma.

    The ratio of a record is its probability under the target over its average probability under models drawn at random.
    Online that average is half the mean over shadows that saw it and half the mean over those that did not; offline it
    is ((1 + a) * mean_out + 1 - a) / 2. Population records are outside every model, so theirs is the mean over all
    shadows, mapped in the same way offline. A candidate that all shadows saw, or none did, uses the mean that it has.

    Args:
        target_probability: (n,) probability of the true class under the target, in [0, 1].
        shadow_probability: (k, n) the same under each shadow.
        included: (k, n) which shadow trained on which candidate.
        population_target: (z,) as target_probability, for population records outside all training.
        population_shadow: (k, z) as shadow_probability.
        online: Whether shadows that saw the record are used.
        gamma: Factor by which a ratio must win, above 0.
        a: Offline scaling in [0, 1]; not used online.

    Returns:
        (n,) float64 in [0, 1], higher = member.

    Raises:
        ValueError: If shapes differ, a probability is outside [0, 1], or gamma or a out of range.

    Source: Zarifzadeh, Liu, Shokri 2024, "Low-Cost High-Power Membership Inference Attacks", the pairwise likelihood
    ratio and its offline approximation. Means are taken by mask, so shuffling shadows changes nothing.
    """
    ratios = _Ratios(
        target_probability, shadow_probability, included, population_target, population_shadow, online=online
    )
    return _share_beaten(*ratios.at(a), gamma=gamma)


class _Ratios:
    """Ratios p(x | target) / p(x), with all that does not depend on `a` computed once."""

    def __init__(
        self,
        target: npt.NDArray[Any],
        shadows: npt.NDArray[Any],
        included: npt.NDArray[np.bool_],
        population_target: npt.NDArray[Any],
        population_shadow: npt.NDArray[Any],
        *,
        online: bool,
    ) -> None:
        k, n = shadows.shape
        if target.shape != (n,) or included.shape != (k, n):
            raise ValueError(
                f"target is {target.shape}, shadows {shadows.shape}, included {included.shape}; want n, kn, kn"
            )
        if population_shadow.shape != (k, len(population_target)) or not len(population_target):
            raise ValueError(
                f"population is {population_target.shape} for the target and {population_shadow.shape} for {k} "
                "shadows; give the same records, at least one, to all models"
            )
        for name, values in (
            ("target", target),
            ("shadow", shadows),
            ("population", population_target),
            ("shadow's population", population_shadow),
        ):
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError(
                    f"a {name} probability is outside [0, 1] or not a number; take it from signals.probability"
                )
        self._online = online
        self._target = np.asarray(target, dtype=np.float64)
        self._population_target = np.asarray(population_target, dtype=np.float64)
        self._population_average = np.asarray(population_shadow, dtype=np.float64).mean(axis=0)
        outs, mean_out = _masked_mean(shadows, ~included)
        if online:
            ins, mean_in = _masked_mean(shadows, included)
            both = (mean_in + mean_out) / 2
            self._average = np.where(outs == 0, mean_in, np.where(ins == 0, mean_out, both))
        else:
            self._average = np.where(outs == 0, mean_out[outs > 0].mean() if (outs > 0).any() else 1.0, mean_out)

    def at(self, a: float) -> tuple[Float64Array, Float64Array]:
        """Return the ratios of candidates (n,) and population (z,)."""
        if not 0 <= a <= 1:
            raise ValueError(f"a is {a}; it must be in [0, 1]")
        average, population = self._average, self._population_average
        if not self._online:
            average, population = (((1 + a) * mean + 1 - a) / 2 for mean in (average, population))
        return self._target / np.maximum(average, _TINY), self._population_target / np.maximum(population, _TINY)


def _masked_mean(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Return how many rows the mask selects in each column, and their mean in float64; 0 where it selects none."""
    counts = mask.sum(axis=0)
    return counts, np.where(mask, values, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(counts, 1)


def _share_beaten(ratio: Float64Array, population: Float64Array, *, gamma: float) -> Float64Array:
    """Return for each ratio the share of the population's ratios that it exceeds by more than a factor gamma."""
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}; it must be above 0")
    # A sorted population answers each candidate in log z steps, with no (n, z) comparison.
    return np.asarray(np.searchsorted(np.sort(population), ratio / gamma, side="left") / len(population))


@dataclass(frozen=True)
class RMIA(Attack):
    """Robust membership inference with shadow models and population records.

    Attributes:
        shadows: Shadow models to train, at least 1 (2 to tune `a`).
        online: Whether to use the shadows that saw the record.
        gamma: Factor by which a ratio must win, above 0.
        a: Offline scaling in [0, 1], or None to tune it on the shadows: each of a few shadows plays the target in turn,
            and the target's own signals are not used.
        queries: Views of each image that are asked about, 1 .. 10; the score is the mean over them. Worth it where
            training flips or moves images.
    """

    shadows: int = 16
    online: bool = True
    gamma: float = 1.0
    a: float | None = None
    queries: int = 1

    name = "rmia"
    title = "RMIA"
    paper = "Zarifzadeh, Liu, Shokri 2024, Low-Cost High-Power Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.LOGITS}), population=True, recipe=True)
    usual = True
    example = {"shadows": 8}

    def __post_init__(self) -> None:
        if self.shadows < 1 or (self.shadows < 2 and not self.online and self.a is None):
            raise ValueError(f"shadows is {self.shadows}; RMIA needs at least 1, and 2 to tune a")
        check_queries(self.queries)
        if not self.gamma > 0:
            raise ValueError(f"gamma is {self.gamma}; it must be above 0")
        if self.a is not None and not 0 <= self.a <= 1:
            raise ValueError(f"a is {self.a}; it must be in [0, 1]")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the RMIA score of every candidate, ties broken by the record's own ratio."""
        y, population = view.candidates.y, view.population
        said = view.shadows.each(self.shadows, queries=self.queries, on_progress=on_progress)
        signals = ((self._by_view(one.logits, y), self._by_view(one.population, population.y)) for one in said)
        on_candidates, on_population = map(np.stack, zip(*signals, strict=True))  # (k, q, m), (k, q, z)
        included = view.shadows.included(self.shadows)
        notes = []
        if self.a is None and not self.online:
            a = tuned_a(on_candidates[:, 0], included, on_population[:, 0], gamma=self.gamma)
            notes.append(f"a = {a:.1f}, tuned on the shadow models.")
        else:
            a = self.a if self.a is not None else 1.0
        target = self._by_view(view.logits_of_views(view.candidates, self.queries), y)
        population_target = self._by_view(view.logits_of_views(population, self.queries), population.y)
        scores = np.zeros(len(y))
        for q in range(self.queries):
            ratios = _Ratios(
                target[q],
                on_candidates[:, q],
                included,
                population_target[q],
                on_population[:, q],
                online=self.online,
            )
            scores += self._ranked(*ratios.at(a)) / self.queries
        counts = included.sum(axis=0)
        lonely = int((counts == self.shadows).sum() + ((counts == 0).sum() if self.online else 0))
        if lonely:
            notes.append(f"{lonely} records were in all or none of the shadows; the mean there is stands in for both.")
        return MembershipScores(scores, tuple(notes))

    def _by_view(self, logits: Float64Array, y: npt.NDArray[Any]) -> Float64Array:
        """Return the probability of the true class, (q, n)."""
        return np.atleast_2d(probability(logits, y))

    def _ranked(self, ratio: Float64Array, population: Float64Array) -> Float64Array:
        """Return the share of the population that each ratio beats, ties broken by the ratio itself.

        The share moves in steps of 1/z and is monotone in the ratio, which orders records within one step.
        """
        share = _share_beaten(ratio, population, gamma=self.gamma)
        return np.asarray(share + (rankdata(ratio) - 1) / len(ratio) / len(population))


def tuned_a(
    candidates: npt.NDArray[Any],
    included: npt.NDArray[np.bool_],
    population: npt.NDArray[Any],
    *,
    gamma: float,
    players: int = 4,
) -> float:
    """Choose `a` on shadows alone: the value with the best mean AUC when a few shadows play the target in turn.

    Args:
        candidates: (k, n) probability of the true class of each candidate under each shadow.
        included: (k, n) which shadow trained on which candidate.
        population: (k, z) as candidates, for the population.
        gamma: Factor by which a ratio must win, above 0.
        players: Most shadows that play the target.

    Returns:
        One of 0, 0.1 ... 1.
    """
    from sklearn.metrics import roc_auc_score

    grid = np.linspace(0, 1, 11)
    found = np.zeros(len(grid))
    for player in range(min(players, len(candidates))):
        rest = np.arange(len(candidates)) != player
        ratios = _Ratios(
            candidates[player], candidates[rest], included[rest], population[player], population[rest], online=False
        )
        for place, a in enumerate(grid):
            found[place] += roc_auc_score(included[player], _share_beaten(*ratios.at(float(a)), gamma=gamma))
    return float(grid[int(found.argmax())])
