"""RMIA: a record's likelihood ratio compared with those of records that are surely not members."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from attacks.membership.signals import probability
from attacks.protocol import Attack, MembershipScores
from attacks.shadows import ShadowOutputs
from attacks.threat_model import Capability, ThreatModel, View
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
    ratio, ratio_population = _ratios(
        target_probability, shadow_probability, included, population_target, population_shadow, online=online, a=a
    )
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}; it must be above 0")
    ranked = np.sort(ratio_population)
    return np.asarray(np.searchsorted(ranked, ratio / gamma, side="left") / len(ranked), dtype=np.float64)


def _ratios(
    target_probability: npt.NDArray[Any],
    shadow_probability: npt.NDArray[Any],
    included: npt.NDArray[np.bool_],
    population_target: npt.NDArray[Any],
    population_shadow: npt.NDArray[Any],
    *,
    online: bool,
    a: float,
) -> tuple[Float64Array, Float64Array]:
    """Return p(x | target) / p(x) for candidates (n,) and population (z,)."""
    _check(target_probability, shadow_probability, included, population_target, population_shadow)
    if not 0 <= a <= 1:
        raise ValueError(f"a is {a}; it must be in [0, 1]")
    shadows = np.asarray(shadow_probability, dtype=np.float64)
    outs, ins = (~included).sum(axis=0), included.sum(axis=0)
    mean_out = np.where(~included, shadows, 0.0).sum(axis=0) / np.maximum(outs, 1)
    mean_in = np.where(included, shadows, 0.0).sum(axis=0) / np.maximum(ins, 1)
    population = np.asarray(population_shadow, dtype=np.float64).mean(axis=0)
    if online:
        average = np.where(outs == 0, mean_in, np.where(ins == 0, mean_out, (mean_in + mean_out) / 2))
    else:
        out = np.where(outs == 0, mean_out[outs > 0].mean() if (outs > 0).any() else 1.0, mean_out)
        average = ((1 + a) * out + 1 - a) / 2
        population = ((1 + a) * population + 1 - a) / 2
    ratio = np.asarray(target_probability, dtype=np.float64) / np.maximum(average, _TINY)
    return ratio, np.asarray(population_target, dtype=np.float64) / np.maximum(population, _TINY)


def _check(
    target: npt.NDArray[Any],
    shadows: npt.NDArray[Any],
    included: npt.NDArray[np.bool_],
    population_target: npt.NDArray[Any],
    population_shadow: npt.NDArray[Any],
) -> None:
    k, n = shadows.shape
    if target.shape != (n,) or included.shape != (k, n):
        raise ValueError(
            f"target is {target.shape}, shadows {shadows.shape}, included {included.shape}; want n, kn, kn"
        )
    if population_shadow.shape != (k, len(population_target)) or not len(population_target):
        raise ValueError(
            f"population is {population_target.shape} for the target and {population_shadow.shape} for {k} shadows; "
            "give the same records, at least one, to all models"
        )
    for name, values in (("target", target), ("shadow", shadows), ("population", population_target)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"a {name} probability is outside [0, 1] or not a number; take it from signals.probability"
            )


@dataclass(frozen=True)
class RMIA(Attack):
    """Robust membership inference with shadow models and population records.

    Attributes:
        shadows: Shadow models to train, at least 1 (2 to tune `a`).
        online: Whether to use the shadows that saw the record.
        gamma: Factor by which a ratio must win, above 0.
        a: Offline scaling in [0, 1], or None to tune it on the shadows: each of a few shadows plays the target in turn,
            and the target's own signals are not used.
    """

    shadows: int = 16
    online: bool = True
    gamma: float = 1.0
    a: float | None = None

    name = "rmia"
    title = "RMIA"
    paper = "Zarifzadeh, Liu, Shokri 2024, Low-Cost High-Power Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.LOGITS}), population=True, recipe=True)

    def __post_init__(self) -> None:
        if self.shadows < 1 or (self.shadows < 2 and not self.online and self.a is None):
            raise ValueError(f"shadows is {self.shadows}; RMIA needs at least 1, and 2 to tune a")
        if not self.gamma > 0:
            raise ValueError(f"gamma is {self.gamma}; it must be above 0")
        if self.a is not None and not 0 <= self.a <= 1:
            raise ValueError(f"a is {self.a}; it must be in [0, 1]")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the RMIA score of every candidate, ties broken by the record's own ratio."""
        outputs = view.shadows.outputs(self.shadows, on_progress=on_progress)
        y, population = view.candidates.y, view.population
        notes = []
        if self.a is None and not self.online:
            a = tuned_a(outputs, y, population.y, gamma=self.gamma)
            notes.append(f"a = {a:.1f}, tuned on the shadow models.")
        else:
            a = self.a if self.a is not None else 1.0
        inputs = (
            probability(view.logits(view.candidates.x), y),
            probability(outputs.logits, y),
            outputs.included,
            probability(view.logits(population.x), population.y),
            probability(outputs.population, population.y),
        )
        scores = rmia_scores(*inputs, online=self.online, gamma=self.gamma, a=a)
        counts = outputs.included.sum(axis=0)
        lonely = int((counts == self.shadows).sum() + ((counts == 0).sum() if self.online else 0))
        if lonely:
            notes.append(f"{lonely} records were in all or none of the shadows; the mean there is stands in for both.")
        # The share moves in steps of 1/z and is monotone in the ratio itself, which orders records within one step.
        ratio, _ = _ratios(*inputs, online=self.online, a=a)
        fraction = (rankdata(ratio) - 1) / len(ratio)
        return MembershipScores(scores + fraction / len(population), tuple(notes))


def tuned_a(
    outputs: ShadowOutputs, y: npt.NDArray[Any], population_y: npt.NDArray[Any], *, gamma: float, players: int = 4
) -> float:
    """Choose `a` on shadows alone: the value with the best mean AUC when a few shadows play the target in turn."""
    from sklearn.metrics import roc_auc_score

    candidate, population = probability(outputs.logits, y), probability(outputs.population, population_y)
    grid = np.linspace(0, 1, 11)
    found = np.zeros(len(grid))
    for player in range(min(players, len(candidate))):
        rest = np.arange(len(candidate)) != player
        truth = outputs.included[player]
        for place, a in enumerate(grid):
            scores = rmia_scores(
                candidate[player], candidate[rest], outputs.included[rest], population[player], population[rest],
                online=False, gamma=gamma, a=float(a),
            )  # fmt: skip
            found[place] += roc_auc_score(truth, scores)
    return float(grid[int(found.argmax())])
