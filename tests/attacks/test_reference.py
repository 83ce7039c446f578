"""Reference models against a loop, against offline LiRA, and against the mistakes seen elsewhere."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.membership.lira import lira_scores
from attacks.membership.reference import Reference, Signal, reference_scores
from attacks.target import Target
from attacks.view import expose
from defenses.records import BoolArray


def example(k: int = 6, n: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Records differ in difficulty; being in raises the signal by 2. Masks are unpaired coins."""
    rng = np.random.default_rng(seed)
    base = rng.normal(scale=4, size=n)
    included, truth = rng.random((k, n)) < 0.5, rng.random(n) < 0.5
    references = base + 2 * included + rng.normal(size=(k, n))
    return base + 2 * truth + rng.normal(size=n), references, included, truth


def test_equals_a_loop_over_records() -> None:
    target, references, included, _ = example()
    included[:, 0] = True  # no reference left: the average of the other means stands in
    means = [
        column[~mask].mean() if not mask.all() else None for column, mask in zip(references.T, included.T, strict=True)
    ]
    average = np.mean([mean for mean in means if mean is not None])
    expected = target - np.array([average if mean is None else mean for mean in means])
    assert np.allclose(reference_scores(target, references, included), expected)


def test_on_confidence_it_ranks_as_offline_lira_with_fixed_variance() -> None:
    target, references, included, _ = example(n=500)
    lira = lira_scores(target, references, included, online=False, variance="fixed")
    assert np.array_equal(reference_scores(target, references, included).argsort(), lira.argsort())


def test_what_models_that_saw_the_record_say_does_not_matter() -> None:
    target, references, included, _ = example()
    louder = np.where(included, 99.0, references)
    assert np.array_equal(reference_scores(target, references, included), reference_scores(target, louder, included))


def test_two_references_beat_a_global_threshold() -> None:
    target, references, included, truth = example(k=2, n=3000)
    found = roc_auc_score(truth, reference_scores(target, references, included))
    assert found > roc_auc_score(truth, target) + 0.1


@pytest.mark.parametrize("signal", list(Signal))
def test_one_reference_finds_members_of_a_leaky_model(signal: Signal, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    attack = Reference(shadows=1, signal=signal)
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
    assert roc_auc_score(included, claim.scores) > 0.8
    assert "were in all reference models" in claim.notes[0]


def test_what_cannot_be_scored_is_refused() -> None:
    target, references, included, _ = example()
    with pytest.raises(ValueError, match="nothing to compare with"):
        reference_scores(target, references, np.ones_like(included))
    with pytest.raises(ValueError, match=r"\(k, n\)"):
        reference_scores(target[:3], references, included)
    with pytest.raises(ValueError, match="not finite"):
        reference_scores(target, references + np.inf, included)
    with pytest.raises(ValueError, match="shadows is 0"):
        Reference(shadows=0)
