"""ART's membership inference as baselines: the same answers as ART gives by itself, from what the view discloses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased
from art.estimators.classification import PyTorchClassifier
from sklearn.metrics import roc_auc_score

from attacks.art.black_box import LEARNERS, ArtBlackBox
from attacks.art.rule_based import ArtRuleBased
from attacks.capabilities import Capability
from attacks.protocol import Attack
from attacks.target import Target
from attacks.view import expose
from defenses.records import BoolArray


def scores(attack: Attack, target: Target, seed: int = 0) -> np.ndarray:
    return attack.run(expose(target, attack.requires), rng=np.random.default_rng(seed)).scores


def test_the_rule_is_arts_own(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    records = target.candidates
    estimator = PyTorchClassifier(
        target.model, torch.nn.CrossEntropyLoss(), records.shape, records.classes, device_type="cpu"
    )
    expected = MembershipInferenceBlackBoxRuleBased(estimator).infer(records.x, records.y)
    assert np.array_equal(scores(ArtRuleBased(), target), np.ravel(expected))


def test_the_rule_is_right_where_a_class_does_not_occur(leaky: tuple[Target, BoolArray]) -> None:
    # From class numbers 0, 1 and 3 ART would count three classes; the fourth would have no column.
    target, _ = leaky
    some = target.candidates.take(np.flatnonzero(target.candidates.y != 2))
    predicted = target.model(torch.from_numpy(some.x)).argmax(1).numpy()
    assert np.array_equal(scores(ArtRuleBased(), replace(target, candidates=some)), predicted == some.y)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_black_box_attack_finds_members_and_repeats_itself(learner: str, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    attack = ArtBlackBox(shadows=8, learner=learner)
    np.random.seed(1)  # noqa: NPY002 - ART's learners would draw from the global state
    first = scores(attack, target)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first, scores(attack, target))
    assert ((first >= 0) & (first <= 1)).all()
    if learner != "lr":  # linear in the probabilities, so it cannot see whether that of the true class is large
        assert roc_auc_score(included, first) > 0.7


def test_both_ask_for_no_more_than_they_need(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    labels_only = replace(target, access=frozenset({Capability.LABELS, Capability.RECORDS}), shadows=None)
    assert scores(ArtRuleBased(), labels_only).shape == (len(target.candidates),)
    view = expose(target, ArtBlackBox().requires)
    ArtBlackBox(shadows=2).run(view, rng=np.random.default_rng(0))
    assert view.queries == len(target.candidates)


@pytest.mark.parametrize("wrong", [{"shadows": 0}, {"rows": 10}, {"learner": "nn"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ArtBlackBox(**wrong)  # type: ignore[arg-type]
