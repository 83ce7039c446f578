"""Quantile regression: how confident would the model be of this record, had it not seen it?"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.membership.signals import logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.records import Records

Float64Array = npt.NDArray[np.float64]

FEWEST = 20
"""Fewest population records that a regression is learned from."""

_CLASSIFIER_COMPONENTS = 50
_FOLDS = 5
_CLIP = 1e-4  # a class that a fold has never seen has probability 0 there, which is not how hard the record is
_MOST_CLASSES = 200  # the learner bins a categorical feature into at most 255 values


def quantile_scores(
    signal: npt.NDArray[Any],
    features: npt.NDArray[Any],
    population: npt.NDArray[Any],
    population_features: npt.NDArray[Any],
    *,
    categorical: int | None = None,
    scaled: bool = False,
    seed: int = 0,
) -> Float64Array:
    """Score candidates by how far their signal lies above the median that is expected of a non-member like them.

    The median, and for `scaled` the 10% and 90% quantiles, are learned from the population by gradient-boosted trees
    under the pinball loss.

    Args:
        signal: (n,) signal of each candidate under the target; higher where the model fits it better.
        features: (n, d) what is known of each candidate without the target.
        population: (z,) the same signal of records outside training.
        population_features: (z, d) their features.
        categorical: Which feature holds a category, or None.
        scaled: Whether the distance is divided by the distance between the two outer quantiles.
        seed: Of the learner.

    Returns:
        (n,) float64, finite for finite input; higher = member.

    Raises:
        ValueError: If shapes differ, or there is no population.

    Examples:
        >>> features, population = np.zeros((3, 1)), np.array([1.0, 2.0, 3.0])
        >>> quantile_scores(np.array([0.0, 2.0, 5.0]), features, population, features)
        array([-2.,  0.,  3.])

    Source: Bertran et al. 2023, "Scalable Membership Inference Attacks via Quantile Regression", section 3. Deviation:
    the distance above one quantile ranks the records, where the paper learns one quantile for each false positive rate.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    if signal.shape != features.shape[:1] or population.shape != population_features.shape[:1] or not len(population):
        raise ValueError(
            f"signals are {signal.shape} with features {features.shape}, the population's {population.shape} with "
            f"{population_features.shape}; give one row of features each, and at least one population record"
        )

    def predicted(quantile: float) -> Float64Array:
        learner = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_iter=100,
            learning_rate=0.05,
            max_leaf_nodes=8,
            categorical_features=None if categorical is None else [categorical],
            random_state=seed,
        )
        return np.asarray(learner.fit(population_features, population).predict(features), dtype=np.float64)

    above = np.asarray(signal - predicted(0.5), dtype=np.float64)
    if not scaled:
        return above
    # A spread that a few records happened to have must not blow a score up.
    floor = 0.1 * float(population.std()) or 1.0
    return above / np.maximum(predicted(0.9) - predicted(0.1), floor)


def record_features(
    candidates: Records, population: Records, *, components: int, seed: int
) -> tuple[Float64Array, Float64Array]:
    """Return what the regression sees of each record: principal components, how hard its label is, and the label.

    How hard a label is says a logistic regression on the components, learned from the population and asked only about
    records that it did not see: the logit of the probability that it gives to the label. Without it the trees would
    have to find out by themselves which label belongs to which record, which takes more records than there are.

    Args:
        candidates: (n) records.
        population: (z) records outside training.
        components: Most principal components.
        seed: Of the folds.

    Returns:
        (n, d) features of the candidates and (z, d) features of the population; the last one is the label.
    """
    from sklearn.decomposition import PCA

    flat, flat_population = (records.x.reshape(len(records), -1) for records in (candidates, population))
    most = max(1, min(_CLASSIFIER_COMPONENTS, flat.shape[1], len(flat_population) // 10))
    learner = PCA(most, random_state=seed).fit(flat_population)
    scale = float(np.sqrt(learner.explained_variance_[0])) or 1.0
    near, far = (np.asarray(learner.transform(part) / scale, dtype=np.float64) for part in (flat, flat_population))
    easy, easy_population = _easiness(near, candidates.y, far, population.y, candidates.classes, seed)
    return (
        np.column_stack([near[:, :components], easy, candidates.y]),
        np.column_stack([far[:, :components], easy_population, population.y]),
    )


def _easiness(
    x: Float64Array,
    y: npt.NDArray[np.int64],
    population: Float64Array,
    population_y: npt.NDArray[np.int64],
    classes: int,
    seed: int,
) -> tuple[Float64Array, Float64Array]:
    """Return the logit of the label's probability under classifiers of the population: (n,), and out of fold (z,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    def logit(learner: LogisticRegression, x: Float64Array, y: npt.NDArray[np.int64]) -> Float64Array:
        probability = np.zeros((len(x), classes))
        probability[:, learner.classes_] = learner.predict_proba(x)
        true = probability[np.arange(len(y)), y].clip(_CLIP, 1 - _CLIP)
        return np.asarray(np.log(true) - np.log1p(-true))

    found, found_population, learned = np.zeros(len(y)), np.zeros(len(population_y)), 0
    for rest, fold in KFold(_FOLDS, shuffle=True, random_state=seed).split(population):
        if len(np.unique(population_y[rest])) < 2:
            continue  # nothing to tell apart
        learner = LogisticRegression(max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is as good here
            learner.fit(population[rest], population_y[rest])
        found_population[fold] = logit(learner, population[fold], population_y[fold])
        found += logit(learner, x, y)
        learned += 1
    return found / max(1, learned), found_population


@dataclass(frozen=True)
class Quantile(Attack):
    """Compare each record's confidence with the median predicted for a non-member like it; one model, no shadows.

    Measured on models that remember their training records (8 models each; AUC, then TPR at 1% FPR): on Location-30
    the loss has 0.856 and 0.017, this attack 0.882 and 0.031, or 0.884 and 0.051 `scaled`; on Fashion-MNIST 0.584 and
    0.009, then 0.664 and 0.047, or 0.647 and 0.029. Without the feature for hard labels little more than the loss is
    left on the first (0.860) and about half of the gain on the second (0.631). A Gaussian with learned mean and spread
    does as well by AUC, but finds fewer members at 1% FPR on the images.

    Attributes:
        components: Principal components of a record that the regression sees beside its label, at least 1.
        scaled: Whether the distance above the median is divided by the predicted spread.

    Source: Bertran et al. 2023, "Scalable Membership Inference Attacks via Quantile Regression". Deviations: trees on
    components instead of a network on records, and a feature that says how hard the label is (`record_features`).
    """

    components: int = 10
    scaled: bool = False

    name = "quantile"
    title = "Quantile regression"
    paper = "Bertran et al. 2023, Scalable Membership Inference Attacks via Quantile Regression"
    requires = ThreatModel(frozenset({Capability.LOGITS, Capability.RECORDS}), population=True)

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components is {self.components}; the regression needs at least 1")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return how far every candidate's confidence lies above the median predicted for it."""
        candidates, population = view.candidates, view.population
        if len(population) < FEWEST:
            raise NotApplicableError(
                f"the population holds {len(population)} records; quantile regression needs at least {FEWEST}"
            )
        seed = int(rng.integers(2**31))
        features, population_features = record_features(candidates, population, components=self.components, seed=seed)
        scores = quantile_scores(
            logit_confidence(view.logits(candidates.x), candidates.y),
            features,
            logit_confidence(view.logits(population.x), population.y),
            population_features,
            categorical=features.shape[1] - 1 if candidates.classes <= _MOST_CLASSES else None,
            scaled=self.scaled,
            seed=seed,
        )
        return MembershipScores(scores)
