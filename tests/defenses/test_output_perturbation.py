"""Output perturbation: the solver against scikit-learn, sensitivity by brute force, laws of the noise, the price."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression

from defenses.accounting import account, account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.training import Job, train
from defenses.errors import TrainingError
from defenses.guarantee import Guarantee, Neighboring
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes import output_perturbation
from defenses.schemes.output_perturbation import LIPSCHITZ, TOLERANCE, Law, OutputPerturbation, sensitivity, solve

LINEAR = Architecture("mlp", {"hidden": []})
rng = np.random.default_rng(11)


def rows(n: int, features: int, scale: float = 1.0) -> np.ndarray:
    flat = rng.normal(size=(n, features)) * scale
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1.0)
    return np.hstack([flat, np.ones((n, 1))])


@pytest.mark.parametrize("regularization", [1.0, 0.01, 1e-4])
def test_the_minimum_is_that_of_scikit_learn(regularization: float) -> None:
    x, y = rows(150, 6, 3.0), rng.integers(0, 4, 150)
    ours = solve(x, y, 4, regularization=regularization, members=150)
    theirs = LogisticRegression(C=1 / (regularization * 150), fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y)
    allowed = TOLERANCE * LIPSCHITZ / (150 * regularization)  # how far from the minimum the solver may stop
    assert np.linalg.norm(ours - theirs.coef_) <= allowed + 1e-5


def test_two_classes_are_logistic_regression_with_half_the_penalty() -> None:
    x, y = rows(80, 3), rng.integers(0, 2, 80)
    ours = solve(x, y, 2, regularization=0.02, members=80)
    theirs = LogisticRegression(C=2 / (0.02 * 80), fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(ours[1] - ours[0], theirs.coef_[0], atol=5e-3)
    np.testing.assert_allclose(ours.sum(0), 0, atol=5e-3)


def test_a_class_without_records_is_one_all_the_same() -> None:
    x = rows(30, 3)
    found = solve(x, np.zeros(30, dtype=np.int64), 3, regularization=0.1, members=30)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found[1], found[2], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_replaced_record_moves_the_weights_by_more_than_the_sensitivity(classes: int) -> None:
    """Brute force over tiny data: every corner, sign and label replaced by every other."""
    regularization, members = 0.5, 3
    corners = [np.array([*corner, 1.0]) for corner in ([1, 0], [-1, 0], [0, 1], [0.6, 0.8], [-0.6, -0.8], [0, 0])]
    rest_x, rest_y = np.stack(corners[:2]), np.array([0, 1])
    solutions = []
    for corner, label in itertools.product(corners, range(classes)):
        x, y = np.vstack([rest_x, corner]), np.append(rest_y, label)
        solutions.append(solve(x, y, classes, regularization=regularization, members=members))
    moved = max(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(solutions, 2))
    bound = sensitivity(regularization, members)
    assert moved <= bound
    assert moved > 0.25 * bound  # so that the bound is of the right size


def test_no_record_has_a_steeper_loss_than_the_constant_says_and_some_have() -> None:
    """By automatic differentiation, at weights that are sure of the wrong class, or of nothing."""
    steepest = []
    for scale in (0.0, 1.0, 100.0):
        for label in range(3):
            weights = torch.tensor(rng.normal(size=(3, 4)) * scale, requires_grad=True)
            for row in torch.from_numpy(rows(200, 3, 5.0)):
                loss = torch.nn.functional.cross_entropy(weights @ row, torch.tensor(label))
                steepest.append(float(torch.autograd.grad(loss, weights)[0].norm()))
    assert 0.99 * LIPSCHITZ < max(steepest) <= LIPSCHITZ * (1 + 1e-9)


def trained(scheme: OutputPerturbation, records: Records, *, seeds: int = 1, members: int | None = None):  # type: ignore[no-untyped-def]
    recipe = Recipe(architecture=LINEAR, lots=Lots(members or len(records), 1, 1))
    return train(Job(recipe, scheme, records), np.ones((seeds, len(records)), bool), range(seeds), device="cpu")


def images(n: int = 60) -> Records:
    x = rng.uniform(size=(n, 1, 2, 2)).astype(np.float32) * 3
    y = (x.sum((1, 2, 3)) > 6).astype(np.int64)
    return Records(x, y, 2, Image(0, 3))


def test_released_weights_are_the_fit_and_noise_for_records_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    records = images()
    scheme = OutputPerturbation(epsilon=1.0, regularization=0.001, record_norm=6.0)
    monkeypatch.setattr(
        OutputPerturbation, "drawn", lambda self, shape, members, rng: np.zeros(shape) if members == 75 else 1 / 0
    )
    found = trained(scheme, records, members=75)  # the nominal number, not that of the records
    scaled = np.hstack([records.x.reshape(60, -1) / 6.0, np.ones((60, 1))])
    expected = scaled @ solve(scaled, records.y, 2, regularization=0.001, members=75).T
    np.testing.assert_allclose(found.logits(records.x)[0], expected, atol=1e-4)
    assert (found.logits(records.x)[0].argmax(1) == records.y).mean() > 0.9


def test_records_that_are_too_long_are_scaled_down() -> None:
    x = np.array([[[3.0, 4.0]], [[0.3, 0.4]]], dtype=np.float32)
    found = OutputPerturbation(epsilon=1.0, record_norm=1.0)._rows(x)
    np.testing.assert_allclose(found, [[0.6, 0.8, 1.0], [0.3, 0.4, 1.0]], atol=1e-6)


def test_the_sum_is_divided_by_the_public_number_and_not_by_how_many_there_are() -> None:
    x, y = rows(40, 3), rng.integers(0, 2, 40)
    ours = solve(x, y, 2, regularization=0.1, members=80)
    theirs = solve(x, y, 2, regularization=0.2, members=40)  # half the loss, or twice the penalty
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_exponential_noise_has_its_law() -> None:
    """Its length is a gamma deviate and its direction uniform; the density ratio of a shift is at most e^epsilon."""
    scheme = OutputPerturbation(epsilon=2.0, regularization=0.01)
    drawn = np.stack([scheme.drawn((2, 3), 100, np.random.default_rng(seed)).ravel() for seed in range(4000)])
    most = sensitivity(0.01, 100)
    length = np.linalg.norm(drawn, axis=1)
    assert stats.kstest(length, stats.gamma(6, scale=most / 2.0).cdf).pvalue > 0.01
    squares = (drawn[:, 0] / length) ** 2
    assert stats.kstest(squares, stats.beta(0.5, 2.5).cdf).pvalue > 0.01
    assert stats.kstest(np.sign(drawn[:, 1]), stats.rv_discrete(values=([-1, 1], [0.5, 0.5])).cdf).statistic < 1
    shift = np.zeros(6)
    shift[2] = most
    ratios = 2.0 / most * (np.linalg.norm(drawn - shift, axis=1) - length)  # log densities less each other
    assert np.abs(ratios).max() <= 2.0 + 1e-9


def test_gaussian_noise_has_the_multiplier_that_the_target_asks_for() -> None:
    scheme = OutputPerturbation(epsilon=1.0, delta=1e-5, regularization=0.01, noise=Law.GAUSSIAN)
    drawn = np.stack([scheme.drawn((2, 3), 100, np.random.default_rng(seed)) for seed in range(2000)]).ravel()

    def delta(deviation: float) -> float:  # of the Gaussian mechanism, Balle and Wang 2018, sensitivity 1
        low, high = 1 / (2 * deviation) - deviation, -1 / (2 * deviation) - deviation
        return float(stats.norm.cdf(low) - math.e * stats.norm.cdf(high))

    least = optimize.brentq(lambda deviation: delta(deviation) - 1e-5, 1, 20)
    deviation = drawn.std() / sensitivity(0.01, 100)
    assert least * 0.97 < deviation < least * 1.04
    assert stats.kstest(drawn / drawn.std(), "norm").pvalue > 0.01


@pytest.mark.parametrize("law", list(Law))
def test_it_is_priced_for_a_replaced_record(law: Law) -> None:
    scheme = OutputPerturbation(epsilon=1.0, delta=1e-5, noise=law)
    found = account_run(scheme, History(Lots(100, 10, 2)), delta=1e-5)
    assert isinstance(found, Guarantee)
    assert found.neighboring is Neighboring.REPLACE_ONE
    assert 0.98 < found.epsilon <= 1.0
    if law is Law.EXPONENTIAL:
        pure = account_run(scheme, History(Lots(100, 10, 2)), delta=0)
        assert isinstance(pure, Guarantee)
        assert pure.epsilon == 1.0
    else:  # the accountant doubles what replacing moves: the closed form at half the multiplier
        event = scheme.event(History(Lots(100, 10, 2)))
        half = account(dp_accounting.GaussianDpEvent(event.noise_multiplier / 2), delta=1e-5)
        assert isinstance(half, Guarantee)
        assert half.epsilon == pytest.approx(found.epsilon, rel=1e-3)


def test_models_differ_by_their_noise_and_more_budget_means_less() -> None:
    records = images()
    found = trained(OutputPerturbation(epsilon=1.0, record_norm=6.0), records, seeds=2)
    assert not np.allclose(*found.logits(records.x))
    accuracies = [
        (trained(OutputPerturbation(epsilon=e, record_norm=6.0), records, seeds=8).logits(records.x).argmax(2)
         == records.y).mean()
        for e in (0.01, 1000.0)
    ]  # fmt: skip
    assert accuracies[0] < 0.7 < accuracies[1]


def test_a_solver_that_stops_too_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_perturbation, "_ITERATIONS", 1)
    with pytest.raises(TrainingError, match=r"above the .* that the noise allows for"):
        solve(rows(50, 3), rng.integers(0, 3, 50), 3, regularization=1e-4, members=50)


@pytest.mark.parametrize("network", [Architecture("mlp"), Architecture("mlp", {"hidden": [4]}), Architecture("cnn")])
def test_networks_with_hidden_layers_are_refused(network: Architecture) -> None:
    recipe = Recipe(architecture=network, lots=Lots(60, 10, 1))
    with pytest.raises(TrainingError, match=r"use mlp with hidden = \[\]"):
        train(Job(recipe, OutputPerturbation(epsilon=1.0), images()), np.ones((1, 60), bool), [1], device="cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": 1.0, "regularization": -1.0}, "regularization is -1"),
        ({"epsilon": 1.0, "record_norm": math.inf}, "record_norm is inf"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta is 1"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutputPerturbation(**given)  # type: ignore[arg-type]
