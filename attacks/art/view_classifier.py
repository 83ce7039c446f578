"""A view of the target in the form that ART's attacks take: a classifier that answers queries and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.view import View


def view_classifier(view: View, predict: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Any:
    """Return an ART classifier that asks the target through its view.

    Args:
        view: What the attacker sees; it refuses what the threat model does not disclose, and counts the queries.
        predict: From records (n, *shape) to class probabilities (n, C).

    Returns:
        An `art.estimators.classification.BlackBoxClassifier`.
    """
    from art.estimators.classification import BlackBoxClassifier

    def answer(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.asarray(predict(np.asarray(x, dtype=np.float32)), dtype=np.float32)

    return BlackBoxClassifier(answer, view.facts.shape, view.facts.classes)
