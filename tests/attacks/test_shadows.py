"""Shadows: coins, not halves; a longer list starts with the shorter one; trained once."""

import numpy as np
import pytest

from attacks.membership.rmia import tuned_a
from attacks.threat_model import Target
from defenses.records import BoolArray


def test_membership_of_shadows_is_by_coins(leaky: tuple[Target, BoolArray]) -> None:
    source = leaky[0].shadows
    assert source is not None
    included = source.included(200)
    sizes = included.sum(axis=1)
    assert len(set(sizes)) > 5  # exactly half each time would leak membership through the counts
    assert abs(included.mean() - 0.5) < 4 * 0.5 / np.sqrt(included.size)
    assert np.array_equal(source.included(50), included[:50])


def test_attacks_share_one_set_of_shadows(leaky: tuple[Target, BoolArray]) -> None:
    source = leaky[0].shadows
    assert source is not None
    first = source.outputs(8)
    trained = source.store.trained
    assert np.array_equal(source.outputs(8).logits, first.logits)
    assert np.array_equal(source.outputs(3).logits, first.logits[:3])
    assert source.store.trained == trained
    assert first.logits.shape == (8, 240, 4)
    assert first.population.shape == (8, 150, 4)


def test_shadows_know_their_own_members_best(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    assert target.shadows is not None
    outputs = target.shadows.outputs(8)
    right = outputs.logits.argmax(axis=2) == target.candidates.y
    assert right[outputs.included].mean() > right[~outputs.included].mean() + 0.3


def test_a_is_tuned_within_its_range(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    assert target.shadows is not None
    assert target.population is not None
    found = tuned_a(target.shadows.outputs(8), target.candidates.y, target.population.y, gamma=1.0)
    assert 0 <= found <= 1


def test_no_shadows_is_an_error(leaky: tuple[Target, BoolArray]) -> None:
    source = leaky[0].shadows
    assert source is not None
    with pytest.raises(ValueError, match="at least 1"):
        source.models(0)
