"""PATE: parts, votes by hand, sensitivity by brute force, price against closed forms, and what reaches the student."""

import math

import numpy as np
import pytest
from scipy import stats

from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.training import Job, train
from defenses.errors import TrainingError
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.progress import Progress
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes import pate
from defenses.schemes.pate import PATE, Law, noisy_winners, parts_of

LOTS = Lots(200, 10, 8)
RECIPE = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=LOTS, learning_rate=0.5)


def clusters(n: int, seed: int) -> Records:
    """Three classes, far apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 2)) * 0.3 + np.array([[0, 3], [3, 0], [-3, -3]])[y]
    return Records(x.astype(np.float32), y, 3, Table((), "y", ()))


POOL, PUBLIC = clusters(200, 1), clusters(120, 2)


def test_parts_are_disjoint_whole_and_nearly_of_one_size() -> None:
    found = parts_of(203, 10, np.random.default_rng(0))
    assert sorted(np.bincount(found)) == [20] * 7 + [21] * 3
    assert not np.array_equal(found, parts_of(203, 10, np.random.default_rng(1)))


def test_votes_by_hand() -> None:
    votes = np.array([[0, 1, 2], [0, 1, 1], [2, 1, 2]])
    found = noisy_winners(votes, 3, law=Law.GAUSSIAN, noise_scale=0.0, rng=np.random.default_rng(0))
    assert found.tolist() == [0, 1, 2]


def winning(law: Law, lead: float) -> float:
    """Return how often the difference of two standard deviates is below the lead."""
    return float(stats.norm.cdf(lead / 2**0.5)) if law is Law.GAUSSIAN else 1 - (2 + lead) / 4 * math.exp(-lead)


@pytest.mark.parametrize("law", list(Law))
def test_noise_on_the_counts_has_its_law(law: Law) -> None:
    """Two classes, and one leads by 3 votes."""
    votes = np.repeat(np.array([[0], [0], [0]]), 20000, axis=1)
    found = noisy_winners(votes, 2, law=law, noise_scale=2.0, rng=np.random.default_rng(0))
    assert stats.binomtest(int((found == 0).sum()), 20000, winning(law, 3 / 2.0)).pvalue > 0.01


def test_one_record_moves_one_vote_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brute force: each record of a small pool taken out; counts move by at most 1 in two classes."""
    rng = np.random.default_rng(0)
    pool = Records(clusters(24, 3).x, rng.integers(0, 3, 24), 3, PUBLIC.kind)  # labels of chance: votes are close
    scheme = PATE(noise_scale=1.0, teachers=4, queries=100)
    seen: list[np.ndarray] = []

    def noiseless(votes: np.ndarray, classes: int, **_: object) -> np.ndarray:
        seen.append(np.stack([(votes == label).sum(0) for label in range(classes)], axis=1))
        return np.asarray(seen[-1].argmax(1))

    monkeypatch.setattr(pate, "noisy_winners", noiseless)
    everyone = np.ones((25, 24), bool)
    everyone[np.arange(24), np.arange(24)] = False
    for included in everyone:
        recipe = Recipe(architecture=RECIPE.architecture, lots=Lots(24, 6, 3), learning_rate=1.0)
        train(Job(recipe, scheme, pool, public=PUBLIC), included[None], [1], device="cpu")
    moved = [np.linalg.norm(one - seen[-1], axis=1).max() for one in seen[:-1]]
    assert max(moved) == pytest.approx(math.sqrt(2))
    event = scheme.event(History(LOTS))  # and that is what the multiplier is over
    assert event.event.noise_multiplier == pytest.approx(1.0 / math.sqrt(2))
    assert event.count == 100


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Balle and Wang 2018, Theorem 8, for a sensitivity of mu standard deviations."""
    return float(stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu))


@pytest.mark.parametrize(("scale", "queries"), [(40.0, 100), (100.0, 1000), (5.0, 1)])
def test_gnmax_costs_the_closed_form_of_composed_gaussians(scale: float, queries: int) -> None:
    found = account_run(PATE(noise_scale=scale, queries=queries), History(LOTS), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.neighboring is Neighboring.ADD_REMOVE
    mu = math.sqrt(2 * queries) / scale
    assert gaussian_delta(found.epsilon, mu) <= 1e-5
    assert gaussian_delta(found.epsilon * 0.995, mu) > 1e-5
    orders = np.arange(1.01, 500, 0.01)  # and Renyi DP of the paper's Proposition 8 is no lower
    renyi = np.min(queries * orders / scale**2 + math.log(1e5) / (orders - 1))
    assert found.epsilon <= renyi


def test_lnmax_costs_two_over_the_scale_for_each_query() -> None:
    scheme = PATE(noise_scale=20.0, queries=30, law=Law.LAPLACE)
    pure = account_run(scheme, History(LOTS), delta=0)
    assert isinstance(pure, Guarantee)
    assert pure.epsilon == pytest.approx(30 * 2 / 20.0)
    some = account_run(scheme, History(LOTS), delta=1e-5)
    assert isinstance(some, Guarantee)
    advanced = math.sqrt(2 * 30 * math.log(1e5)) * 0.1 + 30 * 0.1 * (math.exp(0.1) - 1)
    assert some.epsilon <= min(advanced, 3.0)


@pytest.mark.parametrize("law", list(Law))
def test_a_target_is_met_and_not_by_much_less(law: Law) -> None:
    scheme = PATE(epsilon=3.0, queries=50, law=law)
    found = account_run(scheme, History(LOTS), delta=1e-5 if law is Law.GAUSSIAN else 0)
    claimed = scheme.claimed(History(LOTS))
    assert isinstance(found, Guarantee)
    assert claimed is not None
    assert 2.97 < found.epsilon <= 3.0 + 1e-12
    assert (claimed.epsilon, claimed.delta) == (3.0, 1e-5 if law is Law.GAUSSIAN else 0.0)
    assert PATE(noise_scale=1.0).claimed(History(LOTS)) is None


def test_without_noise_nothing_is_promised() -> None:
    found = account_run(PATE(noise_scale=0.0), History(LOTS), delta=1e-5)
    assert isinstance(found, Unaccounted) or math.isinf(found.epsilon)


def students(scheme: PATE, included: np.ndarray, seeds: list[int], public: Records = PUBLIC):  # type: ignore[no-untyped-def]
    return train(Job(RECIPE, scheme, POOL, public=public), included, seeds, device="cpu", width=4)


def test_a_student_learns_what_teachers_say_of_public_records_whose_own_labels_nobody_reads() -> None:
    scheme = PATE(noise_scale=0.5, teachers=5, queries=100)
    included = np.random.default_rng(0).random((2, 200)) < 0.8
    found = students(scheme, included, [1, 2])
    right = found.logits(POOL.x).argmax(2) == POOL.y
    assert right.mean() > 0.95
    unlabelled = Records(PUBLIC.x, np.zeros_like(PUBLIC.y), 3, PUBLIC.kind)
    same = students(scheme, included, [1, 2], unlabelled)
    np.testing.assert_array_equal(same.logits(POOL.x), found.logits(POOL.x))


def test_students_of_one_call_are_those_of_calls_of_their_own() -> None:
    scheme = PATE(noise_scale=3.0, teachers=5, queries=60)
    included = np.random.default_rng(0).random((2, 200)) < 0.8
    together = students(scheme, included, [1, 2]).logits(POOL.x)
    alone = [students(scheme, included[k : k + 1], [1 + k]).logits(POOL.x)[0] for k in range(2)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert not np.allclose(*together)


def test_with_overwhelming_noise_the_student_knows_nothing() -> None:
    included = np.ones((6, 200), bool)
    found = students(PATE(noise_scale=1e6, teachers=5, queries=120), included, [1, 2, 3, 4, 5, 6])
    assert (found.logits(POOL.x).argmax(2) == POOL.y).mean() < 0.7


def test_a_part_without_members_votes_for_the_first_class() -> None:
    """Only one record takes part, so four of five teachers have none and win."""
    included = np.zeros((1, 200), bool)
    included[0, int(np.flatnonzero(POOL.y == 2)[0])] = True
    found = students(PATE(noise_scale=0.0, teachers=5, queries=50), included, [1])
    assert (found.logits(POOL.x)[0].argmax(1) == 0).all()


def test_it_says_what_it_is_training() -> None:
    seen: list[Progress] = []
    job = Job(RECIPE, PATE(noise_scale=1.0, teachers=5, queries=50), POOL, public=PUBLIC)
    train(job, np.ones((1, 200), bool), [1], device="cpu", on_progress=seen.append)
    assert list(dict.fromkeys(entry.stage for entry in seen)) == ["training the teachers", "training the students"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of the two"),
        ({"epsilon": 1.0, "noise_scale": 1.0}, "exactly one of the two"),
        ({"epsilon": -1.0}, "epsilon is -1"),
        ({"noise_scale": -1.0}, "noise_scale is -1"),
        ({"noise_scale": 1.0, "teachers": 0}, "teachers is 0"),
        ({"noise_scale": 1.0, "queries": 0}, "queries 0"),
        ({"noise_scale": 1.0, "delta": 1.0}, "delta is 1"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PATE(**given)  # type: ignore[arg-type]


def test_more_queries_than_public_records_are_refused() -> None:
    with pytest.raises(TrainingError, match="queries is 500, but there are 120 public records"):
        students(PATE(noise_scale=1.0), np.ones((1, 200), bool), [1])
