"""Gradient matching on DLG's own network, what messages are made of, labels, and what defenses change."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from attacks.gradient_leakage.gradient_matching import GradientMatching, Leaked
from attacks.gradient_leakage.gradient_protections import clipped, noised, sparsified
from attacks.gradient_leakage.shared_gradients import local_updates, shared_gradients, shared_under
from attacks.similarity import psnr
from auditor.evidence.record_leakage import pair
from defenses.gradients import ClippedGaussian
from defenses.progress import Progress

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
    found = GradientMatching(**({"tolerance": 1e-6} | settings)).run(  # type: ignore[arg-type]
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


def test_a_local_update_is_what_plain_steps_leave() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.rand(2, 4, 6, dtype=torch.float64), torch.randint(3, (2, 4))
    found = local_updates(net, x, y, steps=3, learning_rate=0.5)
    for v in range(2):
        copied = copy.deepcopy(net)
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(copied(x[v]), y[v]).backward()
            optimizer.step()
        for (name, before), after in zip(net.named_parameters(), copied.parameters(), strict=True):
            torch.testing.assert_close(found[name][v], (before - after) / 0.5)


def test_a_scheme_clips_each_record_and_adds_its_noise_once() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    x, y = torch.rand(6, 4, 30, dtype=torch.float64), torch.randint(3, (6, 4))
    each = shared_gradients(net, x.reshape(24, 1, 30), y.reshape(24, 1))
    norms = torch.stack([value.flatten(1).square().sum(1) for value in each.values()]).sum(0).sqrt()
    threshold = float(norms.median())  # some are clipped and some are not
    weights = (threshold / norms).clamp(max=1.0)
    quiet = shared_under(net, x, y, ClippedGaussian(threshold, 0.0), seed=0)
    for name, value in quiet.items():
        by_hand = (each[name] * weights.reshape(-1, *[1] * (value.ndim - 1))).reshape(6, 4, *value.shape[1:]).mean(1)
        torch.testing.assert_close(value, by_hand)
    noisy, again = (shared_under(net, x, y, ClippedGaussian(threshold, 2.0), seed=7) for _ in range(2))
    added = torch.cat([(noisy[name] - quiet[name]).flatten(1) for name in quiet], dim=1)
    assert float(added.std()) == pytest.approx(2.0 * threshold / 4, rel=0.03)
    assert float(torch.corrcoef(added)[0, 1:].abs().max()) < 0.15  # every victim has its own
    for name in quiet:
        assert torch.equal(noisy[name], again[name])
        torch.testing.assert_close(shared_under(net, x, y, None, seed=0)[name], shared_gradients(net, x, y)[name])


def test_dlg_on_its_own_network_is_clear_within_300_evaluations(
    model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert (attack(model, observed(model, victims), victims, tolerance=1e-8) > 55).sum() >= 7


def test_joint_labels_are_found_too(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = victims
    found = GradientMatching(joint_labels=True, evaluations=150, tolerance=1e-6).run(
        model, observed(model, victims), shape=(1, 28, 28), classes=CLASSES, generator=torch.Generator().manual_seed(1)
    )
    assert (found.labels[:, 0] == y.numpy()).sum() >= 7
    assert (decibels(found.x[:, 0], x) > 30).sum() >= 5


def test_the_best_restart_counts_and_all_are_paid_for() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 3)).double()
    x, y = torch.rand(6, 2, 12, dtype=torch.float64), torch.tensor([[0, 1]] * 6)

    def search(restarts: int) -> Leaked:
        return GradientMatching(evaluations=15, restarts=restarts).run(
            net, shared_gradients(net, x, y), shape=(12,), classes=3, labels=y.numpy(), batch_size=2,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    one, four = search(1), search(4)
    assert (four.mismatch < one.mismatch).sum() >= 2
    assert (four.evaluations >= one.evaluations + 3).all()


def test_victims_that_do_not_fit_at_once_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(6)
    net = nn.Sequential(nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 3)).double()
    x, y = torch.rand(5, 1, 12, dtype=torch.float64), torch.randint(3, (5, 1))

    def search() -> Leaked:
        seen: list[Progress] = []
        found = GradientMatching(evaluations=30, restarts=2).run(
            net, shared_gradients(net, x, y), shape=(12,), classes=3, labels=y.numpy(),
            generator=torch.Generator().manual_seed(0), on_progress=seen.append,
        )  # fmt: skip
        assert seen
        assert all(0 < one.done <= one.total for one in seen)
        return found

    whole = search()
    monkeypatch.setattr("attacks.gradient_leakage.gradient_matching._AT_ONCE", 300)  # two victims
    assert np.allclose(search().x, whole.x, atol=1e-6)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "each record clipped"])
def test_batches_are_taken_apart_and_paired_with_the_truth(
    model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor], cut: bool
) -> None:
    x, y = victims[0].reshape(4, 2, 1, 28, 28), victims[1].reshape(4, 2)  # different digits in each batch of two
    rule = ClippedGaussian(1.0, 0.0) if cut else None
    found = GradientMatching(evaluations=160, tolerance=1e-6, unknown_scale=cut).run(
        model, shared_under(model, x, y, rule, seed=0), shape=(1, 28, 28), classes=CLASSES,
        generator=torch.Generator().manual_seed(1), labels=y.numpy(), batch_size=2,
    )  # fmt: skip
    clear = []
    for made, true in zip(found.x, x.numpy(), strict=True):
        likeness = psnr(made, true, value_range=(0.0, 1.0))
        clear += [likeness[i, j] for i, j in enumerate(pair(likeness))]
    assert np.sum(np.array(clear) > 25) >= 6


def test_local_steps_are_taken_along(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = victims[0][:4], victims[1][:4]
    update = local_updates(model, x[:, None], y[:, None], steps=4, learning_rate=0.1)
    knowing = attack(model, update, (x, y), local_steps=4, learning_rate=0.1, evaluations=120)
    naive = attack(model, {name: value / 4 for name, value in update.items()}, (x, y), evaluations=80)
    assert (knowing > 30).sum() >= 3
    assert np.median(knowing) > np.median(naive) + 20


def test_a_smooth_guess_is_better_under_noise(model: nn.Module, victims: tuple[torch.Tensor, torch.Tensor]) -> None:
    hidden = noised(observed(model, victims), std=2e-2, generator=torch.Generator().manual_seed(3))
    plain = attack(model, hidden, victims, evaluations=100)
    smooth = attack(model, hidden, victims, evaluations=100, smoothness=1e-2)
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
    # What is left of a tenth of the numbers still tells much to who knows which were cut, and little to who does not.
    sparse = sparsified(shared, kept=0.1)
    knowing = attack(model, sparse, victims, masked=True, evaluations=150)
    naive = attack(model, sparse, victims, evaluations=100)
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


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_what_explains_no_more_than_silence_has_not_converged(size: float) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Sigmoid(), torch.nn.Linear(8, 3)).double()
    seen = {name: size * torch.randn(4, *value.shape).double() for name, value in net.named_parameters()}
    found = GradientMatching(joint_labels=True, tolerance=1e-8, evaluations=200).run(
        net, seen, shape=(6,), classes=3, generator=torch.Generator().manual_seed(0), value_range=(2.0, 4.0)
    )
    assert not found.converged.any()
    assert found.silent.all() == (size == 0)
    if size == 0:  # labels that the model itself gives leave no gradient, whatever the record
        assert (found.mismatch == 1).all()
        assert (found.x == 3).all()
    else:
        assert (found.mismatch < 1e-8).all()


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
    with pytest.raises(ValueError, match="local_steps 0"):
        GradientMatching(local_steps=0)
    with pytest.raises(ValueError, match=r"learning_rate is 0\.0"):
        GradientMatching(learning_rate=0.0)
    with pytest.raises(ValueError, match="steps is 0"):
        local_updates(model, victims[0][:, None], victims[1][:, None], steps=0, learning_rate=0.1)
