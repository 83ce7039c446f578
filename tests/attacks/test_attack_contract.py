"""What every attack must do; attacks are found by discovery, so a new file is covered without touching this one."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.capabilities import Capability
from attacks.protocol import Attack, Claim, Guesses, MembershipScores, Predicates, Reconstructions
from attacks.registry import registered_attacks
from attacks.target import Target
from attacks.threat_model import LABEL, ThreatModel
from attacks.view import expose
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.records import BoolArray

SYNTHETIC = {Capability.SYNTHETIC}


EVERY = [kind(**kind.example) for kind in registered_attacks().values()]
ON_MODELS = [attack for attack in EVERY if attack.claims is MembershipScores and not SYNTHETIC & attack.requires.access]
OTHERS = [attack for attack in EVERY if attack not in ON_MODELS]


@pytest.fixture(params=ON_MODELS, ids=lambda attack: attack.name)
def attack(request: pytest.FixtureRequest) -> Attack:
    found: Attack = request.param
    return found


def slack(included: np.ndarray) -> float:
    """Return three standard errors of the AUC of scores that tell nothing (Mann and Whitney 1947)."""
    inside, outside = int(included.sum()), int((~included).sum())
    return 3 * float(np.sqrt((inside + outside + 1) / (12 * inside * outside)))


def run(attack: Attack, target: Target) -> np.ndarray:
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(1))
    assert isinstance(claim, MembershipScores)
    return claim.scores


def test_there_is_a_score_for_each_candidate_and_higher_means_member(
    attack: Attack, leaky: tuple[Target, BoolArray]
) -> None:
    """On a model that memorised its records; a weak attack may rank badly, but none may rank the wrong way round."""
    target, included = leaky
    scores = run(attack, target)
    assert scores.shape == included.shape
    assert roc_auc_score(included, scores) > 0.5 - slack(included)


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


def claimed(attack: Attack, targets: list[Target]) -> tuple[Target, Claim]:
    """Run an attack on the first target that it applies to."""
    reasons = []
    for target in targets:
        try:
            view = expose(target, attack.requires)
            return target, attack.run(view, rng=np.random.default_rng(1))
        except NotApplicableError as error:
            reasons.append(str(error))
    raise AssertionError(f"{attack.name} applies to no target: {reasons}")


def parts_of(claim: Claim) -> list[np.ndarray]:
    return [value for value in vars(claim).values() if isinstance(value, np.ndarray)]


@pytest.mark.parametrize("attack", OTHERS, ids=lambda attack: attack.name)
def test_what_it_claims_is_what_it_says_it_claims_and_repeatable(attack: Attack, disclosing: list[Target]) -> None:
    target, claim = claimed(attack, disclosing)
    again = claimed(attack, disclosing)[1]
    assert type(claim) is attack.claims
    for one, other in zip(parts_of(claim), parts_of(again), strict=True):
        assert np.array_equal(one, other)
    count = len(target.candidates)
    if isinstance(claim, MembershipScores):
        assert claim.scores.shape == (count,)
        even = np.arange(count) % 2 == 0  # copies of these were released
        assert roc_auc_score(even, claim.scores) > 0.5 - slack(even)
    elif isinstance(claim, Reconstructions):
        assert claim.x.shape[1:] == target.candidates.shape
        assert claim.x.dtype == np.float32
        assert claim.x.min() >= 0  # the public range
        assert claim.x.max() <= 1
    elif isinstance(claim, Guesses):
        assert target.transcript is not None
        assert len(claim.values) == (count if attack.requires.candidates else target.transcript.victims)
    elif isinstance(claim, Predicates):
        assert claim.matches.shape[1] == count
        assert claim.matches.dtype == np.bool_
    else:
        for copy in claim.copies:
            answers = module_logits(copy.model, target.candidates.x, device="cpu")
            assert answers.shape == (count, target.candidates.classes)
            assert np.isfinite(answers).all()


@pytest.mark.parametrize("attack", OTHERS, ids=lambda attack: attack.name)
def test_it_is_not_shown_what_it_must_not_see(attack: Attack, disclosing: list[Target]) -> None:
    view = expose(disclosing[0], attack.requires)
    if not attack.requires.candidates:
        with pytest.raises(NotDisclosedError, match="records in question"):
            _ = view.candidates
    for hidden in attack.requires.hidden:
        if hidden == LABEL:
            continue
        assert hidden == "colour"
        assert not view.candidates.x[:, 6:].any()


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_it_is_described(attack: Attack) -> None:
    assert isinstance(attack.requires, ThreatModel)
    assert attack.title
    assert attack.paper
    assert attack.name == attack.name.lower()
