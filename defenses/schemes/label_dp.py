"""Label differential privacy: labels are randomised once, before training; features are not protected."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from defenses.defense import Defense, History, Prepared
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee, Neighboring, Unit
from defenses.mechanisms.local.labels import keep_probability, randomise_labels
from defenses.records import Records


@dataclass(frozen=True, kw_only=True)
class LabelDP(Defense):
    """Plain training on labels that went through randomised response.

    The guarantee is about one record's label, all features and who takes part being public: two data sets are
    neighbours if one label differs. It says nothing of whole records, so an audit of membership, or of swapped records,
    cannot contradict it. The mode of the papers' schemes is missing here: the text says what it guarantees.

    Attributes:
        epsilon: In nats, above 0 and finite.

    Raises:
        ValueError: If epsilon is out of range.

    Source: Ghazi et al. 2021, "Deep Learning with Label Differential Privacy", with one stage of training and no prior.
    """

    epsilon: float

    name = "label_dp"
    title = "label DP by randomised response"
    paper = "Ghazi et al. 2021, Deep Learning with Label Differential Privacy"
    neighboring = Neighboring.REPLACE_ONE
    unit = Unit.LABEL
    example = {"epsilon": 1.0}

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon is {self.epsilon}; it must be above 0 and finite")

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Randomise every label."""
        labels = randomise_labels(records.y, epsilon=self.epsilon, classes=records.classes, rng=rng)
        facts = {"share_of_true_labels_expected": keep_probability(self.epsilon, records.classes)}
        return Prepared(replace(records, y=labels), facts)

    def event(self, history: History) -> Any:
        """Return epsilon, spent once: what comes after is post-processing."""
        return PureDpEvent(self.epsilon)

    def claimed(self, history: History) -> Guarantee:
        """Return epsilon for labels."""
        return Guarantee(self.epsilon, 0.0, self.neighboring, self.unit, accountant="target of the plan")

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        return (
            "it covers labels alone: neighbours differ in one record's label, and features are not protected at all",
            "who is in the training set, and the number of classes, are public",
            "coins come from a pseudo-random generator with a secret seed, as if they were truly random",
        )
