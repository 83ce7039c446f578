"""Label DP: flip rates, and the proved epsilon against the likelihood ratio over every outcome."""

import math

import numpy as np
import pytest
from scipy import stats

from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.training import Job, train
from defenses.guarantee import Guarantee, Neighboring
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.label_dp import LabelDP


def records(n: int, classes: int, label: int | None = None) -> Records:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n) if label is None else np.full(n, label)
    return Records(rng.normal(size=(n, 4)).astype(np.float32), y, classes, Table((), "y", ()))


def outcomes(label: int, *, classes: int, epsilon: float, n: int = 60_000) -> np.ndarray:
    made = LabelDP(epsilon=epsilon).prepare(records(n, classes, label), np.random.default_rng(label))
    return np.bincount(made.records.y, minlength=classes)


@pytest.mark.parametrize(("classes", "epsilon"), [(2, 1.0), (10, 2.0), (3, 0.1)])
def test_labels_flip_at_the_rate_of_randomised_response_and_to_all_others_alike(classes: int, epsilon: float) -> None:
    kept = math.exp(epsilon) / (math.exp(epsilon) + classes - 1)
    expected = np.full(classes, (1 - kept) / (classes - 1))
    expected[1] = kept
    found = outcomes(1, classes=classes, epsilon=epsilon)
    assert stats.chisquare(found, expected * found.sum()).pvalue > 0.01


@pytest.mark.parametrize(("classes", "epsilon"), [(2, 1.0), (5, 2.0)])
def test_the_worst_likelihood_ratio_is_the_proved_epsilon(classes: int, epsilon: float) -> None:
    found = np.stack([outcomes(label, classes=classes, epsilon=epsilon) for label in range(classes)])
    worst = max(np.log(found[:, said].max() / found[:, said].min()) for said in range(classes))
    proved = account_run(LabelDP(epsilon=epsilon), History(Lots(100, 10, 3)), delta=0)
    assert isinstance(proved, Guarantee)
    assert proved.epsilon == epsilon
    assert proved.neighboring is Neighboring.REPLACE_ONE
    assert worst == pytest.approx(epsilon, abs=0.08)  # three standard errors of a logarithm of rates


def test_features_and_everything_else_stay_and_the_statement_says_so() -> None:
    own = records(50, 3)
    made = LabelDP(epsilon=1.0).prepare(own, np.random.default_rng(0))
    np.testing.assert_array_equal(made.records.x, own.x)
    assert made.front is None
    assert (made.records.y != own.y).any()
    assert any("features are not protected" in sentence for sentence in LabelDP(epsilon=1.0).assumptions())


def test_each_model_trains_on_labels_of_its_own_and_on_none_but_its_members() -> None:
    """With members of one class and hardly any noise, a model says that class everywhere."""
    pool, included = records(200, 3), np.ones((2, 200), bool)
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=Lots(200, 20, 20), learning_rate=0.5)
    found = train(Job(recipe, LabelDP(epsilon=0.5), pool), included, [1, 2], device="cpu")
    assert not np.allclose(*found.logits(pool.x))
    one_class = (pool.y == 1)[None]
    found = train(Job(recipe, LabelDP(epsilon=20.0), pool), one_class, [1], device="cpu")
    assert (found.logits(pool.x)[0].argmax(1) == 1).all()


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_values_out_of_range_are_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is"):
        LabelDP(epsilon=epsilon)
