"""Gradient leakage: exact where it has a closed form, DLG's own network, and what defenses change."""

import time

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch import nn

from attacks.reconstruction.batched_lbfgs import minimise
from attacks.reconstruction.gradient_leakage import (
    GradientMatching,
    clipped,
    first_layer_inputs,
    noised,
    recover_labels,
    shared_gradients,
    sparsified,
)
from attacks.similarity import psnr
from auditor.record_leakage import pair

CLASSES = 10


class LeNet(nn.Module):
    """The network of Zhu et al. (2019), its sigmoids and wide initial weights included."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 5, padding=2, stride=2), nn.Sigmoid(),
            nn.Conv2d(channels, channels, 5, padding=2, stride=2), nn.Sigmoid(),
            nn.Conv2d(channels, channels, 5, padding=2), nn.Sigmoid(),
        )  # fmt: skip
        self.last = nn.Linear(channels * 49, CLASSES)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x).flatten(1))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return LeNet().double()


@pytest.fixture(scope="module")
def victims() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight digits, enlarged to 28 x 28."""
    x, y = load_digits(return_X_y=True)
    small = torch.from_numpy(x[:8].reshape(8, 1, 8, 8) / 16)
    return nn.functional.interpolate(small, (28, 28), mode="bilinear"), torch.from_numpy(y[:8]).long()


def decibels(found: np.ndarray, x: torch.Tensor) -> np.ndarray:
    return -10 * np.log10(((found - x.numpy()) ** 2).reshape(len(found), -1).mean(1) + 1e-300)


def attack(model: nn.Module, observed: dict, victims: tuple, **settings: object) -> np.ndarray:  # type: ignore[type-arg]
    x, y = victims
    found = GradientMatching(**settings).run(  # type: ignore[arg-type]
        model, observed, shape=x.shape[1:], classes=CLASSES, generator=torch.Generator().manual_seed(1),
        labels=None if settings.get("joint_labels") else y.numpy()[:, None],
    )  # fmt: skip
    return decibels(found.x[:, 0], x)


def observed(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    x, y = victims
    return shared_gradients(model, x[:, None], y[:, None])


def test_shared_gradients_are_those_of_autograd(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = victims
    found = shared_gradients(model, x.reshape(2, 4, 1, 28, 28), y.reshape(2, 4))
    for v in range(2):
        loss = nn.functional.cross_entropy(model(x[4 * v : 4 * v + 4]), y[4 * v : 4 * v + 4])
        for (name, _), value in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            torch.testing.assert_close(found[name][v], value)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_first_linear_layer_gives_its_input_away(dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)).to(dtype)
    x, y = torch.rand(16, 64, dtype=dtype), torch.randint(CLASSES, (16,))
    shared = shared_gradients(net, x[:, None], y[:, None])
    assert float((first_layer_inputs(shared["0.weight"], shared["0.bias"]) - x).abs().max()) < error
    dead = {name: torch.zeros_like(value) for name, value in shared.items()}
    assert bool(first_layer_inputs(dead["0.weight"], dead["0.bias"]).isnan().all())


def test_the_label_of_one_example_is_exact(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = recover_labels(observed(model, victims)["last.bias"], batch_size=1)
    assert found.labels[:, 0].tolist() == victims[1].tolist()
    assert found.exact.all()


def test_labels_of_batches_are_counted_and_as_many_as_asked_for() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    x, y = torch.rand(50, 8, 64), torch.randint(CLASSES, (50, 8))
    y[0] = 3  # all alike: one label, eight times
    found = recover_labels(shared_gradients(net, x, y)["2.bias"], batch_size=8)
    assert found.labels.shape == (50, 8)
    assert not found.exact.any()
    assert found.labels[0].tolist() == [3] * 8
    right = [len(set(a) & set(b)) / len(set(b)) for a, b in zip(found.labels, y.numpy(), strict=True)]
    assert np.mean(right) > 0.95


def test_dlg_on_its_own_network_is_clear_within_300_evaluations(
    model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert (attack(model, observed(model, victims), victims) > 55).sum() >= 7


def test_joint_labels_are_found_too(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = victims
    found = GradientMatching(joint_labels=True, restarts=2).run(
        model, observed(model, victims), shape=(1, 28, 28), classes=CLASSES, generator=torch.Generator().manual_seed(1)
    )
    assert (found.labels[:, 0] == y.numpy()).sum() >= 6
    assert (decibels(found.x[:, 0], x) > 40).sum() >= 4
    assert (found.evaluations > 300).any()


def test_batches_are_taken_apart_and_paired_with_the_truth(
    model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = victims[0].reshape(4, 2, 1, 28, 28), victims[1].reshape(4, 2)  # different digits in each batch of two
    shared = shared_gradients(model, x, y)
    found = GradientMatching(restarts=1).run(
        model, shared, shape=(1, 28, 28), classes=CLASSES, generator=torch.Generator().manual_seed(1),
        labels=y.numpy(), batch_size=2,
    )  # fmt: skip
    clear = []
    for made, true in zip(found.x, x.numpy(), strict=True):
        likeness = psnr(made, true, value_range=(0.0, 1.0))
        clear += [likeness[i, j] for i, j in enumerate(pair(likeness))]
    assert np.sum(np.array(clear) > 40) >= 6


def test_a_smooth_guess_is_better_under_noise(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden = noised(observed(model, victims), std=2e-2, generator=torch.Generator().manual_seed(3))
    plain = attack(model, hidden, victims, evaluations=150)
    smooth = attack(model, hidden, victims, evaluations=150, smoothness=1e-2)
    assert np.median(smooth) > np.median(plain) + 5


def test_defenses(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    shared = observed(model, victims)
    whole = sum(value.flatten(1).square().sum(1) for value in shared.values()).sqrt()
    assert bool((whole > 1).all())
    cut = clipped(shared, max_norm=1.0)
    assert (attack(model, cut, victims, unknown_scale=True, evaluations=200) > 40).sum() >= 6  # it hides nothing
    generator = torch.Generator().manual_seed(3)
    hidden = noised(cut, std=1e-2, generator=generator)
    assert (attack(model, hidden, victims, unknown_scale=True, evaluations=100) < 10).all()
    # What is left of a third of the numbers still tells much to who knows which were cut, and little to who does not.
    sparse = sparsified(shared, kept=0.3)
    knowing = attack(model, sparse, victims, masked=True, evaluations=200)
    naive = attack(model, sparse, victims, evaluations=200)
    assert np.median(knowing) > np.median(naive) + 5


def test_the_noise_has_the_standard_deviation_that_it_says() -> None:
    zeros = {"w": torch.zeros(1, 200_000, dtype=torch.float64)}
    for laplace, kurtosis in ((False, 3.0), (True, 6.0)):
        drawn = noised(zeros, std=0.3, generator=torch.Generator().manual_seed(0), laplace=laplace)["w"]
        assert float(drawn.std()) == pytest.approx(0.3, rel=0.01)
        assert float((drawn**4).mean() / (drawn**2).mean() ** 2) == pytest.approx(kurtosis, rel=0.06)


def test_sparsifying_keeps_the_largest_over_all_parameters() -> None:
    gradients = {"a": torch.tensor([[5.0, 1.0], [0.1, 0.2]]), "b": torch.tensor([[-4.0, 0.5], [0.3, -9.0]])}
    found = sparsified(gradients, kept=0.5)
    assert found["a"].tolist() == [[5.0, 0.0], [0.0, 0.0]]
    assert found["b"].tolist() == [[-4.0, 0.0], [pytest.approx(0.3), -9.0]]


@pytest.mark.slow
def test_many_victims_at_once_are_cheaper(model: nn.Module) -> None:
    x, y = load_digits(return_X_y=True)
    small = torch.from_numpy(x[:32].reshape(32, 1, 8, 8) / 16)
    images = nn.functional.interpolate(small, (28, 28), mode="bilinear"), torch.from_numpy(y[:32]).long()
    shared = observed(model, images)

    def seconds(which: slice) -> float:
        part = {name: value[which] for name, value in shared.items()}
        began = time.perf_counter()
        attack(model, part, (images[0][which], images[1][which]), evaluations=60)
        return time.perf_counter() - began

    seconds(slice(0, 1))
    assert np.median([seconds(slice(k, k + 1)) for k in range(3)]) * 32 > 2 * seconds(slice(0, 32))


def test_rows_are_minimised_as_each_would_be_by_itself() -> None:
    rng = np.random.default_rng(0)
    q = torch.from_numpy(rng.normal(size=(5, 20, 12)))
    matrices = q.transpose(1, 2) @ q + 0.1 * torch.eye(12)
    centres = torch.from_numpy(rng.normal(size=(5, 12)))

    def objective(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pulled = torch.einsum("vij,vj->vi", matrices, x - centres)
        return ((x - centres) * pulled).sum(1) / 2, pulled

    found = minimise(objective, torch.zeros(5, 12, dtype=torch.float64), evaluations=100, tolerance=1e-20)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, centres, atol=1e-8, rtol=0)
    assert int(found.evaluations.max()) < 60
    alone = minimize(
        lambda x: ((x - centres[0].numpy()) @ matrices[0].numpy() @ (x - centres[0].numpy())) / 2, np.zeros(12)
    )
    assert found.x[0].numpy() == pytest.approx(alone.x, abs=1e-3)


def test_wrong_input(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    shared = observed(model, victims)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="labels are missing"):
        GradientMatching().run(model, shared, shape=(1, 28, 28), classes=CLASSES, generator=generator)
    del shared["last.bias"]
    with pytest.raises(ValueError, match=r"no gradient of 'last\.bias'"):
        GradientMatching().run(
            model, shared, shape=(1, 28, 28), classes=CLASSES, generator=generator, labels=victims[1].numpy()[:, None]
        )
    with pytest.raises(ValueError, match="evaluations is 0"):
        GradientMatching(evaluations=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        recover_labels(torch.zeros(2, 10), batch_size=0)
