"""The learned attack per class: it learns from one class alone, and small classes take the pooled classifier."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.membership.shadow_classifier import SMALLEST_CLASS, ShadowClassifier
from attacks.shadow_outputs import ShadowOutput
from attacks.target import Target
from attacks.view import expose
from defenses.progress import OnProgress, silent
from defenses.records import Records, Table

CLASSES = 3


@dataclass
class Recorded:
    """Shadow models that are sure of their members, in the classes that tell."""

    y: np.ndarray
    telling: tuple[int, ...]
    seed: int = 0

    def included(self, count: int) -> np.ndarray:
        return np.random.default_rng(5).random((count, len(self.y))) < 0.5

    def each(self, count: int, *, queries: int = 1, on_progress: OnProgress = silent) -> Iterator[ShadowOutput]:
        for k, inside in enumerate(self.included(count)):
            yield ShadowOutput(outputs(self.y, inside, self.telling, 10 * k + self.seed), np.empty((0, CLASSES)))


def outputs(y: np.ndarray, inside: np.ndarray, telling: tuple[int, ...], seed: int) -> np.ndarray:
    said = np.random.default_rng(seed).normal(size=(len(y), CLASSES))
    said[np.arange(len(y)), y] += np.where(inside & np.isin(y, telling), 3.0, 1.0)
    return said


class Answers(torch.nn.Module):
    """Answers in the order of the records, whose only feature is their number."""

    def __init__(self, said: np.ndarray) -> None:
        super().__init__()
        self.said = torch.nn.Parameter(torch.from_numpy(said.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.said[x[:, 0].long()]


def attacked(attack: ShadowClassifier, shadows: Recorded, inside: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    y = shadows.y
    records = Records(np.arange(len(y), dtype=np.float32)[:, None], y, CLASSES, Table((), "y", ()))
    target = Target(Answers(outputs(y, inside, (0, 1, 2), 999)), records, "d", shadows=shadows)
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(1))
    return claim.scores, claim.notes


def test_each_class_learns_from_its_own_outputs_alone() -> None:
    y = np.arange(600) % CLASSES
    inside = np.random.default_rng(3).random(600) < 0.5
    attack = ShadowClassifier(shadows=4, per_class=True)
    scores, notes = attacked(attack, Recorded(y, telling=(0, 1)), inside)
    other, _ = attacked(attack, Recorded(y, telling=(0,)), inside)
    assert notes == ()
    assert np.array_equal(scores[y != 1], other[y != 1])
    assert not np.array_equal(scores[y == 1], other[y == 1])
    assert roc_auc_score(inside[y == 1], scores[y == 1]) > 0.75
    assert roc_auc_score(inside[y == 2], scores[y == 2]) < 0.75  # nothing could be learned there
    pooled, _ = attacked(ShadowClassifier(shadows=4), Recorded(y, telling=(0, 1, 2)), inside)
    assert roc_auc_score(inside, pooled) > 0.75


def test_a_small_class_takes_the_pooled_classifier_and_says_so() -> None:
    y = np.where(np.arange(600) < 20, 2, np.arange(600) % 2)
    assert (y == 2).sum() * 4 < SMALLEST_CLASS
    inside = np.random.default_rng(3).random(600) < 0.5
    shadows = Recorded(y, telling=(0, 1, 2))
    scores, notes = attacked(ShadowClassifier(shadows=4, per_class=True), shadows, inside)
    pooled, _ = attacked(ShadowClassifier(shadows=4), shadows, inside)
    assert notes == ("1 small classes took the pooled classifier.",)
    assert scores[y == 2] == pytest.approx(pooled[y == 2])
    assert not np.array_equal(scores[y == 0], pooled[y == 0])
