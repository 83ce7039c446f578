"""DCGAN: its networks, what of the records reaches it under a rule, what it shows of them, and when it collapsed."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.reconstruction.dcgan import Dcgan, DcganTraining, Gan
from attacks.reconstruction.dcgan_networks import SIZES, Discriminator, Generator, Judged, collapse, initialise
from attacks.similarity import similarities
from attacks.target import Target
from attacks.view import View, expose
from auditor.evidence.record_leakage import RecordLeakage, record_leakage
from defenses.errors import NotApplicableError
from defenses.gradients import ClippedGaussian
from defenses.randomness import Noise
from defenses.records import Image, Records, Table
from defenses.updates import Tensors

SHORT = DcganTraining(steps=8, batch_size=10, width=4, latent=4)


def digits(count: int, *, start: int = 0) -> Records:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[start : start + count]
    return Records((x[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32), y[order].astype(np.int64), 10, Image())


def run(training: DcganTraining, records: Records, *, rule: ClippedGaussian | None = None, seed: int = 3) -> Gan:
    assert isinstance(records.kind, Image)
    return training.run(
        records.x, records.y, classes=records.classes, kind=records.kind, seed=seed, rule=rule, expected_members=50
    )


def leakage(x: np.ndarray, train: Records, holdout: Records) -> RecordLeakage:
    measure = next(iter(similarities(Image()).values()))
    return record_leakage(measure(x, train.x), measure(x, holdout.x), rng=np.random.default_rng(0), permutations=999)


@pytest.fixture(scope="module")
def trained() -> Gan:
    return run(DcganTraining(steps=500), digits(50))


@dataclasses.dataclass(frozen=True)
class Spy(ClippedGaussian):
    """Keeps what it is given, and releases what it is told to."""

    seen: list[Tensors] = dataclasses.field(default_factory=list)
    labels: list[Tensor] = dataclasses.field(default_factory=list)
    noise: list[Tensor] = dataclasses.field(default_factory=list)
    told: Callable[[Tensor], Tensor] = torch.clone

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        self.labels.append(y[mask].clone())
        return super().factors(norms, y, mask, state)

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        self.seen.append({name: value.clone() for name, value in sums.items()})
        self.noise.append(next(iter(noise.normal(sums).values())).flatten())
        return {name: self.told(value) for name, value in sums.items()}, state


def norm(values: Tensors) -> float:
    return float(torch.cat([value.flatten() for value in values.values()]).double().norm())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "classes"), [(1, 0), (3, 4)])
def test_networks_fit_their_images(size: int, channels: int, classes: int) -> None:
    shape = (channels, size, size)
    generator = Generator(shape, latent=5, width=4, classes=classes)
    discriminator = Discriminator(shape, width=32, classes=classes)
    for network in (generator, discriminator):
        initialise(network, torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 3])
    images = generator(torch.randn(3, 5), y)
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1
    logits = discriminator(images, y)
    assert logits.shape == (3,)
    alone = torch.cat([discriminator(image[None], label[None]) for image, label in zip(images, y, strict=True)])
    torch.testing.assert_close(alone, logits)  # no example of a batch moves another
    for name, value in discriminator.named_parameters():
        if value.ndim > 1 and value.numel() > 1000:
            assert value.std().item() == pytest.approx(0.02, rel=0.1), name
    norms = [part for part in discriminator.modules() if isinstance(part, nn.GroupNorm)]
    assert len(norms) == {8: 0, 28: 1, 32: 2, 64: 3}[size]
    assert all(abs(part.weight.mean().item() - 1) < 0.02 and not part.bias.any() for part in norms)


@pytest.mark.parametrize("classes", [0, 3])
def test_judged_as_a_class_the_loss_is_that_of_a_discriminator(classes: int) -> None:
    discriminator = Discriminator((1, 8, 8), width=4, classes=classes)
    x, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    labelled = torch.cat([x, y[:, None, None, None].expand(-1, 1, 8, 8)], dim=1)
    logits = Judged(discriminator, 3)(labelled)
    assert logits.shape == (6, 4)
    torch.testing.assert_close(
        F.cross_entropy(logits, y, reduction="none"), F.softplus(-discriminator(x, y)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("conditional", [True, False])
def test_a_rule_that_changes_nothing_changes_nothing(conditional: bool) -> None:
    # Every record in every lot, no clipping, no noise: the two ways to the discriminator's gradient must agree.
    training = dataclasses.replace(SHORT, batch_size=50, width=8, learning_rate=5e-3, conditional=conditional)
    records = digits(50)
    plain = run(training, records)
    ruled = run(training, records, rule=ClippedGaussian(1e9, 0.0))
    assert np.abs(plain.history - ruled.history).max() < 1e-3
    assert np.abs(plain.history[0] - plain.history[-1]).min() > 0.02
    one, other = (gan.sample(20, np.random.default_rng(0)) for gan in (plain, ruled))
    assert np.abs(one - other).max() < 0.01


def test_records_reach_the_generator_through_the_release_alone() -> None:
    # Other records, and fewer, so that realised lots differ: what is released being equal, everything must be.
    few = digits(30, start=50)
    one, other = (run(SHORT, records, rule=Spy(1.0, 1.0, told=torch.ones_like)) for records in (digits(50), few))
    assert np.array_equal(one.history, other.history)
    assert np.array_equal(*(gan.sample(20, np.random.default_rng(0)) for gan in (one, other)))
    told = run(SHORT, digits(50), rule=Spy(1.0, 1.0))
    assert not np.array_equal(told.history, one.history)


@pytest.mark.parametrize("max_grad_norm", [0.01, 1e-4])
def test_one_record_moves_a_release_by_the_threshold_at_most(max_grad_norm: float) -> None:
    records = digits(51)
    full, less = Spy(max_grad_norm, 1.0), Spy(max_grad_norm, 1.0)
    run(SHORT, records.take(np.arange(50)), rule=full)
    run(SHORT, records.take(np.r_[:49, 50]), rule=less)  # another record in the last one's place
    assert norm(full.seen[0]) > 0.5 * max_grad_norm
    moved = [
        norm({name: value - less.seen[step][name] for name, value in sums.items()})
        for step, sums in enumerate(full.seen)
    ]
    first = next(step for step, value in enumerate(moved) if value > 0)  # from here on, the networks differ too
    assert moved[first] <= 2 * max_grad_norm * (1 + 1e-4)


def test_lots_are_drawn_by_coins_and_released_once_a_step() -> None:
    spy, training = Spy(1.0, 1.0), dataclasses.replace(SHORT, steps=100, batch_size=2)
    records = digits(50)
    gan = run(training, records, rule=spy)
    assert gan.lots.steps == len(spy.seen) == len(gan.history) == 100
    assert gan.lots.sampling_probability == pytest.approx(0.04)
    sizes = [len(labels) for labels in spy.labels]
    assert min(sizes) == 0  # an empty lot is released as well
    assert 1.4 < np.mean(sizes) < 2.6
    assert 1.0 < np.var(sizes) < 3.5
    assert torch.corrcoef(torch.stack(spy.noise)).fill_diagonal_(0).abs().max() < 0.7  # fresh noise at every step
    assert set(torch.cat(spy.labels).tolist()) <= set(records.y.tolist())  # classes, not real against fake


def test_noise_is_added_and_hangs_on_the_seed() -> None:
    records = digits(50)
    quiet, loud, again, other = (
        run(SHORT, records, rule=ClippedGaussian(1.0, sigma), seed=seed).sample(20, np.random.default_rng(0))
        for sigma, seed in ((0.0, 1), (2.0, 1), (2.0, 1), (2.0, 2))
    )
    assert np.array_equal(loud, again)
    assert np.abs(quiet - loud).max() > 1e-3
    assert np.abs(loud - other).max() > 1e-3


def test_the_discriminator_may_step_more_often() -> None:
    gan = run(dataclasses.replace(SHORT, discriminator_steps=4), digits(50))
    passed = gan.history[:, 1]
    assert gan.lots.steps == len(passed) == 10
    assert len(np.unique(passed)) == 3  # of steps 0, 4 and 8


def test_samples_stay_in_the_public_range_and_are_drawn_by_the_given_generator() -> None:
    records = digits(50)
    moved = dataclasses.replace(records, x=3 * records.x - 1, kind=Image(-1.0, 2.0))
    gan, plain = run(SHORT, moved), run(SHORT, records)
    one, again, other = (gan.sample(600, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == (600, 1, 8, 8)
    assert one.dtype == np.float32
    assert one.min() >= -1
    assert one.max() <= 2
    np.testing.assert_allclose(one, 3 * plain.sample(600, np.random.default_rng(0)) - 1, atol=0.02)
    with pytest.raises(ValueError, match="count is 0"):
        gan.sample(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="one each"):
        gan.sample(2, np.random.default_rng(0), y=np.array([1]))


def test_it_makes_the_class_that_is_asked_for(trained: Gan) -> None:
    records = digits(50)
    y = np.repeat(np.arange(10), 20)
    made = trained.sample(200, np.random.default_rng(0), y=y)
    means = np.stack([records.x[records.y == label].mean(axis=0) for label in range(10)])
    nearest = ((made[:, None] - means[None]) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert (nearest == y).mean() > 0.7


def test_it_repeats_a_few_records_and_not_under_noise(trained: Gan) -> None:
    train, holdout = digits(50), digits(50, start=50)
    found = leakage(trained.sample(1000, np.random.default_rng(1)), train, holdout)
    assert found.auc.value is not None
    assert found.auc.value > 0.65
    assert found.p_value < 0.01
    private = DcganTraining(steps=150, batch_size=5)
    gan = run(private, train, rule=ClippedGaussian(1.0, 4.0))
    assert leakage(gan.sample(1000, np.random.default_rng(1)), train, holdout).p_value > 0.01


def test_a_healthy_run_is_not_called_collapsed(trained: Gan) -> None:
    assert trained.collapsed is None


def test_one_image_for_all_is_called_collapsed() -> None:
    stuck = DcganTraining(steps=100, learning_rate=0.0, discriminator_rate=1e-3)
    assert "variants of one" in str(run(stuck, digits(50)).collapsed)
    wild = DcganTraining(steps=100, learning_rate=1.0, discriminator_rate=1e-3)
    assert run(wild, digits(50)).collapsed is not None


def test_records_that_are_all_one_image_are_no_collapse() -> None:
    one = digits(1).take(np.zeros(50, dtype=np.int64))
    assert run(DcganTraining(steps=100), one).collapsed is None


@pytest.mark.parametrize(("losses", "reason"), [((0.0, 20.0), "tells them all"), ((np.nan, 1.0), "diverged")])
def test_a_discriminator_that_has_won_is_called_collapse(
    trained: Gan, losses: tuple[float, float], reason: str
) -> None:
    history = trained.history.copy()
    history[-100:] = losses
    said = collapse(dataclasses.replace(trained, history=history), digits(50), np.random.default_rng(0))
    assert reason in str(said)


def view_of(released: Records) -> View:
    model = nn.Sequential(nn.Flatten(), nn.Linear(released.x[0].size, released.classes))
    return expose(Target(model, released, "d", synthetic=released), Dcgan().requires)


def test_the_attack_sees_released_images_alone() -> None:
    assert Dcgan().requires.access == {Capability.SYNTHETIC}
    copies, holdout = digits(50), digits(50, start=50)
    attack = Dcgan(samples=500, steps=300)
    claim = attack.run(view_of(copies), rng=np.random.default_rng(0))
    assert claim.x.shape == (500, 1, 8, 8)
    found = leakage(claim.x, copies, holdout)
    assert found.p_value < 0.01
    assert Dcgan(learning_rate=0.01, width=3).training == DcganTraining(learning_rate=0.01, width=3)


def test_what_it_cannot_do_it_says() -> None:
    with pytest.raises(NotApplicableError, match="collapsed"):
        Dcgan(steps=1).run(view_of(digits(50)), rng=np.random.default_rng(0))
    rows = Records(np.zeros((4, 3), np.float32), np.zeros(4, np.int64), 2, Table((), "y", ()))
    with pytest.raises(NotApplicableError, match="table"):
        Dcgan().run(view_of(rows), rng=np.random.default_rng(0))
    odd = Records(np.zeros((4, 1, 9, 9), np.float32), np.zeros(4, np.int64), 2, Image())
    with pytest.raises(NotApplicableError, match="8, 28, 32, 64"):
        Dcgan().run(view_of(odd), rng=np.random.default_rng(0))
    nobody = digits(50).take(np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match="0 records"):
        run(SHORT, nobody)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"batch_size": 1}, {"learning_rate": -1.0}, {"discriminator_rate": np.inf}, {"betas": (0.5, 1.0)},
     {"ema_decay": 1.0}, {"width": 0}, {"latent": 0}, {"discriminator_steps": 0}],
)  # fmt: skip
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DcganTraining(**settings)  # type: ignore[arg-type]
    if next(iter(settings)) in {"steps", "width"}:
        with pytest.raises(ValueError, match=next(iter(settings))):
            Dcgan(**settings)  # type: ignore[arg-type]


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="samples"):
        Dcgan(samples=0)
