"""What every attack must do; attacks are found by discovery, so a new file is covered without touching this one."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.catalogue import catalogue
from attacks.protocol import Attack, MembershipScores, Reconstructions
from attacks.threat_model import Target, ThreatModel, expose
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.records import BoolArray

EVERY = [kind() for kind in catalogue().values()]
ATTACKS = [attack for attack in EVERY if attack.requires.candidates]
RECONSTRUCTIONS = [attack for attack in EVERY if not attack.requires.candidates]


@pytest.fixture(params=ATTACKS, ids=lambda attack: attack.name)
def attack(request: pytest.FixtureRequest) -> Attack:
    found: Attack = request.param
    return replace(found, shadows=8) if hasattr(found, "shadows") else found


def run(attack: Attack, target: Target) -> np.ndarray:
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(1))
    assert isinstance(claim, MembershipScores)
    return claim.scores


def test_higher_means_member(attack: Attack, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    scores = run(attack, target)
    assert scores.shape == included.shape
    assert roc_auc_score(included, scores) > 0.8


def test_equal_randomness_gives_equal_scores(attack: Attack, leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    assert np.array_equal(run(attack, target), run(attack, target))


def test_the_order_of_candidates_tells_nothing(attack: Attack, leaky: tuple[Target, BoolArray]) -> None:
    # A constant model knows nothing; whatever an attack still "finds" in it would come from positions.
    target, _ = leaky
    import torch

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 4)

    scores = run(attack, replace(target, model=Constant()))
    first = np.arange(len(scores)) < len(scores) // 2
    assert 0.35 < roc_auc_score(first, scores) < 0.65


def test_it_says_what_it_lacks(attack: Attack, leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    bare = replace(target, population=None, shadows=None)
    if attack.requires.recipe or attack.requires.population:
        with pytest.raises(NotApplicableError, match=r"recipe|population"):
            expose(bare, attack.requires)
    else:
        assert len(run(attack, bare)) == len(target.candidates)


@pytest.mark.parametrize("maker", RECONSTRUCTIONS, ids=lambda attack: attack.name)
def test_who_reconstructs_records_is_not_shown_them(maker: Attack, leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    view = expose(target, maker.requires)
    with pytest.raises(NotDisclosedError, match="records in question"):
        _ = view.candidates
    one, again = (maker.run(view, rng=np.random.default_rng(1)) for _ in range(2))
    assert isinstance(one, Reconstructions)
    assert isinstance(again, Reconstructions)
    assert np.array_equal(one.x, again.x)
    assert one.x.shape[1:] == target.candidates.shape
    assert one.x.dtype == np.float32
    assert one.x.min() >= 0  # the public range of a table
    assert one.x.max() <= 1


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_it_is_described(attack: Attack) -> None:
    assert isinstance(attack.requires, ThreatModel)
    assert attack.title
    assert attack.paper
    assert attack.name == attack.name.lower()
