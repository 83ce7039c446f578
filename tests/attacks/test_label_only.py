"""Attacks on labels alone: distances against a closed form and ART's HopSkipJump, and nothing but labels is asked."""

from dataclasses import replace

import numpy as np
import pytest
from art.attacks.evasion import HopSkipJump
from art.estimators.classification import BlackBoxClassifier
from sklearn.metrics import roc_auc_score

from attacks.membership.augmentation_agreement import AugmentationAgreement, _moved
from attacks.membership.boundary_distance import BoundaryDistance, boundary_distance
from attacks.target import Target
from attacks.view import expose
from defenses.errors import NotDisclosedError
from defenses.records import BoolArray


def halves(weights: np.ndarray, bias: float):  # type: ignore[no-untyped-def]
    return lambda x: (x.reshape(len(x), -1) @ weights + bias > 0).astype(np.int64)


def test_distance_to_a_plane() -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=20), rng.normal(size=(60, 4, 5)).astype(np.float32)
    labels = halves(weights, 0.3)
    exact = np.abs(x.reshape(60, -1) @ weights + 0.3) / np.linalg.norm(weights)
    sides = labels(x)
    start = x.copy()
    for row in range(60):
        start[row] = x[np.flatnonzero(sides != sides[row])[0]]
    found = boundary_distance(labels, x, start, rng=rng, iterations=12, evaluations=200, low=-20, high=20)
    assert (found >= exact * (1 - 1e-3)).all()  # an upper bound
    assert np.median(found / exact) < 1.02
    assert (found / exact).max() < 1.3
    line = boundary_distance(labels, x, start, rng=rng, iterations=0, evaluations=10, low=-20, high=20)
    assert (line >= found * (1 - 1e-6)).all()


def test_as_near_as_art_with_as_many_questions() -> None:
    rng = np.random.default_rng(1)
    hidden, last = rng.normal(size=(8, 16)), rng.normal(size=(16, 3))
    asked = []

    def labels(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return (np.tanh(x @ hidden) @ last).argmax(axis=1)

    x = rng.uniform(size=(25, 8)).astype(np.float32)
    said = labels(x)
    pool = rng.uniform(size=(500, 8)).astype(np.float32)
    of_pool = labels(pool)
    start = np.stack([pool[np.flatnonzero(of_pool != one)[0]] for one in said])
    asked.clear()
    ours = boundary_distance(labels, x, start, rng=rng, iterations=5, evaluations=60, low=0, high=1)
    questions = sum(asked)
    asked.clear()
    estimator = BlackBoxClassifier(lambda x: np.eye(3)[labels(x)], (8,), 3, clip_values=(0.0, 1.0))
    attack = HopSkipJump(estimator, max_iter=5, max_eval=1000, init_eval=60, verbose=False, targeted=False)
    theirs = np.linalg.norm(attack.generate(x, x_adv_init=start.copy()) - x, axis=1)
    assert questions < 1.5 * sum(asked)
    assert np.median(ours / theirs) < 1.1


@pytest.mark.parametrize("attack", [BoundaryDistance(), AugmentationAgreement()], ids=lambda attack: attack.name)
def test_labels_are_enough_and_all_that_is_asked(
    attack: BoundaryDistance | AugmentationAgreement, leaky: tuple[Target, BoolArray]
) -> None:
    target, included = leaky
    view = expose(replace(target, population=None, shadows=None), attack.requires)
    with pytest.raises(NotDisclosedError):
        view.logits(target.candidates.x)
    gap = (view.labels(target.candidates.x) == target.candidates.y).astype(float)
    scores = attack.run(view, rng=np.random.default_rng(0)).scores
    assert roc_auc_score(included, scores) >= roc_auc_score(included, gap) + 0.005  # beats "is the label right?"


def test_images_are_moved_every_way_once() -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 4, 5)).astype(np.float32)
    shown = list(_moved(x, 1))
    assert len(shown) == len({one.tobytes() for one in shown}) == 18
    assert sum(np.array_equal(one, x) for one in shown) == 1
    assert sum(np.array_equal(one, x[..., ::-1]) for one in shown) == 1


def test_a_model_of_one_label_has_no_boundary(leaky: tuple[Target, BoolArray]) -> None:
    import torch

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([1.0, 0, 0, 0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 4)

    target = replace(leaky[0], model=Constant())
    claim = BoundaryDistance().run(expose(target, BoundaryDistance.requires), rng=np.random.default_rng(0))
    assert len(np.unique(claim.scores)) == 2
    assert "no record of another label" in claim.notes[0]
