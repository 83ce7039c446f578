"""Modified entropy: how sure a model is, counted against it where it is sure of a wrong class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from attacks.capabilities import Capability
from attacks.membership.signals import logit_confidence
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, silent

Float64Array = npt.NDArray[np.float64]


def log_modified_entropy(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> Float64Array:
    """Return the logarithm of each record's modified entropy.

    The modified entropy is -(1 - p_y) log p_y - sum over other classes i of p_i log(1 - p_i): zero for a right and
    certain prediction, unbounded for a wrong and certain one. With c_i = log(p_i / (1 - p_i)), every term is one and
    the same function of c_y and of -c_i, which has a logarithm that neither cancels nor underflows; so records keep
    their order where the entropy itself would be zero or infinite for all of them.

    Args:
        logits: (n, C) with C of at least 2.
        y: (n,) true labels.

    Returns:
        (n,) float64, finite for finite logits; lower where the model fits the record better.

    Raises:
        ValueError: If there are fewer than two classes, or a label is out of range.

    Examples:
        >>> bool(np.isclose(log_modified_entropy(np.zeros((1, 2)), np.array([0]))[0], np.log(np.log(2))))
        True

    Source: Song and Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", equation 8; the
    logarithm changes no ranking.
    """
    true = logit_confidence(logits, y)
    signed = -_confidence_of_every_class(np.asarray(logits, dtype=np.float64))
    np.put_along_axis(signed, np.asarray(y, dtype=np.int64)[:, None], true[:, None], axis=1)
    return np.asarray(logsumexp(_log_term(signed), axis=1))


def _confidence_of_every_class(logits: Float64Array) -> Float64Array:
    """Return log(p_i / (1 - p_i)) of every class, (n, C)."""
    logs = logits - logsumexp(logits, axis=1, keepdims=True)
    top = logits.argmax(axis=1)
    # Only the top class can have a probability near 1, whose complement must be summed from the others.
    np.put_along_axis(logs, top[:, None], -1.0, axis=1)
    confidence = logs - np.log1p(-np.exp(logs))
    np.put_along_axis(confidence, top[:, None], logit_confidence(logits, top)[:, None], axis=1)
    return np.asarray(confidence)


def _log_term(c: Float64Array) -> Float64Array:
    """Return the logarithm of -(1 - p) log p for the p whose logit is c."""
    # -log p is log(1 + exp(-c)), which is exp(-c) to the last digit long before that underflows.
    log_loss = np.where(c > 600, -c, np.log(np.logaddexp(0, -np.minimum(c, 600))))
    return np.asarray(log_loss - np.logaddexp(0, c))


def centred_by_class(
    scores: Float64Array,
    y: npt.NDArray[Any],
    population_scores: Float64Array,
    population_y: npt.NDArray[Any],
    *,
    smallest: int,
) -> Float64Array:
    """Return scores less the mean score of the population's records of the same class.

    One threshold on what remains is one threshold per class on the scores. A class with fewer than `smallest`
    population records gets the mean over all of the population.

    Args:
        scores: (n,) scores.
        y: (n,) their classes.
        population_scores: (z,) scores of records outside training, at least one.
        population_y: (z,) their classes.
        smallest: Fewest population records of a class that give it a mean of its own.

    Returns:
        (n,) float64.
    """
    centred = scores - population_scores.mean()
    for label in np.unique(y):
        own = population_scores[population_y == label]
        if len(own) >= smallest:
            centred[y == label] = scores[y == label] - own.mean()
    return np.asarray(centred)


@dataclass(frozen=True)
class ModifiedEntropy(Attack):
    """Score each record by minus the logarithm of its modified entropy; needs the target alone.

    Source: Song and Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", section 4.2.
    Deviation: one ranking for all classes; for thresholds per class see `ModifiedEntropyByClass`.
    """

    name = "modified_entropy"
    title = "Modified entropy"
    paper = "Song & Mittal 2021, Systematic Evaluation of Privacy Risks of Machine Learning Models"
    requires = ThreatModel(frozenset({Capability.LOGITS}))

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return minus the log modified entropy of every candidate."""
        return MembershipScores(-log_modified_entropy(view.logits(view.candidates.x), view.candidates.y))


@dataclass(frozen=True)
class ModifiedEntropyByClass(Attack):
    """Modified entropy with thresholds per class, set on population records instead of on shadow models.

    Attributes:
        smallest: Fewest population records of a class that give it a threshold of its own, at least 1.

    Source: Song and Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", section 4.2.
    Deviation: scores are centred on the population's class means, which ranks records of all classes together; the
    paper looks for the best threshold of each class on a shadow model.
    """

    smallest: int = 30

    name = "modified_entropy_by_class"
    title = "Modified entropy, by class"
    paper = "Song & Mittal 2021, Systematic Evaluation of Privacy Risks of Machine Learning Models"
    requires = ThreatModel(frozenset({Capability.LOGITS}), population=True)

    def __post_init__(self) -> None:
        if self.smallest < 1:
            raise ValueError(f"smallest is {self.smallest}; a mean needs at least 1 record")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return minus the log modified entropy of every candidate, above the mean of its class."""
        candidates, population = view.candidates, view.population
        scores = centred_by_class(
            -log_modified_entropy(view.logits(candidates.x), candidates.y),
            candidates.y,
            -log_modified_entropy(view.logits(population.x), population.y),
            population.y,
            smallest=self.smallest,
        )
        return MembershipScores(scores)
