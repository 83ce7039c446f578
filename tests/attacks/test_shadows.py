"""Shadows: coins, not halves; a longer list starts with the shorter one; trained once; no more kept than allowed."""

from dataclasses import replace

import numpy as np
import pytest

from attacks import shadows
from attacks.membership.lira import LiRA
from attacks.membership.rmia import RMIA, tuned_a
from attacks.membership.signals import probability
from attacks.target import Target
from attacks.view import expose
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


def test_each_shadow_says_the_same_whether_or_not_all_is_kept(leaky: tuple[Target, BoolArray]) -> None:
    source = leaky[0].shadows
    assert source is not None
    together = source.outputs(8)
    assert np.array_equal(together.logits, source.models(8).logits(source.job.records.x))
    values = together.logits.size + together.population.size
    fits, spills = (replace(source, memory=8 * values - less, planned=8, _kept={}) for less in (0, 1))
    for one in (fits, spills):
        said = list(one.each(8))
        assert np.array_equal([shadow.logits for shadow in said], together.logits)
        assert np.array_equal([shadow.population for shadow in said], together.population)
        assert len(list(one.each(3))) == 3
    assert fits._kept
    assert not spills._kept


def test_what_is_not_kept_is_asked_for_one_shadow_at_a_time(
    leaky: tuple[Target, BoolArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leaky[0].shadows is not None
    source = replace(leaky[0].shadows, memory=0, population=None, planned=8, _kept={})
    asked = []
    query = shadows.module_logits
    monkeypatch.setattr(shadows, "module_logits", lambda model, x, **where: asked.append(1) or query(model, x, **where))
    for done, shadow in enumerate(source.each(3), start=1):
        assert len(asked) == done
        assert shadow.population.shape == (0, 4)
    assert len(asked) == 3  # not the 8 that are planned


def test_each_attack_scores_the_same_whether_or_not_all_is_kept(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    assert target.shadows is not None
    streamed = replace(target, shadows=replace(target.shadows, memory=0, _kept={}))
    for attack in (LiRA(shadows=8), RMIA(shadows=8), RMIA(shadows=8, online=False)):
        kept, again = (
            attack.run(expose(one, attack.requires), rng=np.random.default_rng(0)) for one in (target, streamed)
        )
        assert np.array_equal(kept.scores, again.scores)
        assert kept.notes == again.notes


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
    outputs = target.shadows.outputs(8)
    on_candidates = probability(outputs.logits, target.candidates.y)
    on_population = probability(outputs.population, target.population.y)
    assert 0 <= tuned_a(on_candidates, outputs.included, on_population, gamma=1.0) <= 1


def test_no_shadows_is_an_error(leaky: tuple[Target, BoolArray]) -> None:
    source = leaky[0].shadows
    assert source is not None
    with pytest.raises(ValueError, match="at least 1"):
        source.models(0)
