"""The engine against naive loops, against Opacus, and against itself at other widths."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from defenses import compiled_functions
from defenses.architectures import Architecture
from defenses.augmentation import Augmentation
from defenses.defense import Defense
from defenses.engine import model_stack as engine
from defenses.engine.store import model_of
from defenses.engine.training import Job, train
from defenses.errors import TrainingError
from defenses.gradients import ClippedGaussian
from defenses.progress import Progress
from defenses.recipe import Precision, Recipe, Schedule
from defenses.records import Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense
from defenses.updates import SGD, Adam

MLP = Architecture("mlp", {"hidden": [16]})
CNN = Architecture("cnn")
BATCH_NORM = Architecture(f"{__name__}:batch_norm_net", allow_code=True)
DEFENSES = [NoDefense(), DPSGD(noise_multiplier=0.8, max_grad_norm=0.5)]


def batch_norm_net(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.BatchNorm1d(8), nn.Linear(8, classes))


def dropout_net(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(int(np.prod(shape)), classes))


def pool(n: int = 60, *, image: bool = False, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    shape = (1, 8, 8) if image else (12,)
    x = rng.normal(size=(n, *shape)).astype(np.float32)
    return Records(x, rng.integers(0, 3, n), 3, Image() if image else Table((), "y", ()))


def job(defense: Defense, *, epochs: int = 2, image: bool = False, **changes: object) -> Job:
    recipe = Recipe(
        architecture=CNN if image else MLP,
        lots=Lots(30, 7, epochs),
        learning_rate=0.2,
        optimizer=SGD(momentum=0.9),
        precision=Precision.FLOAT64,
    )
    return Job(replace(recipe, **changes), defense, pool(image=image))  # type: ignore[arg-type]


def masks(models: int, n: int = 60) -> np.ndarray:
    return np.random.default_rng(5).random((models, n)) < 0.5


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
@pytest.mark.parametrize("image", [False, True], ids=["mlp", "cnn"])
def test_models_do_not_depend_on_the_stack(defense: Defense, image: bool) -> None:
    # About 50 steps in float64; momentum, schedule and unequal epoch lengths included.
    work = job(defense, epochs=10, image=image, schedule=Schedule.COSINE)
    included, seeds = masks(5), [11, 12, 13, 14, 15]
    together = train(work, included, seeds, width=5, device="cpu")
    apart = train(work, included, seeds, width=1, device="cpu")
    assert difference(together.parameters, apart.parameters) < 1e-8
    order = [3, 0, 4, 2, 1]
    shuffled = train(work, included[order], [seeds[k] for k in order], width=2, device="cpu")
    assert difference(shuffled.parameters, together.select(order).parameters) < 1e-8
    assert difference(together.select([0]).parameters, together.select([1]).parameters) > 1e-3


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_one_step_in_float32_does_not_depend_on_the_stack(defense: Defense) -> None:
    work = job(defense, epochs=1, lots=Lots(30, 30, 1), precision=Precision.FLOAT32)
    together = train(work, masks(4), [1, 2, 3, 4], width=4, device="cpu")
    apart = train(work, masks(4), [1, 2, 3, 4], width=1, device="cpu")
    assert difference(together.parameters, apart.parameters) < 1e-5


def test_plain_training_is_torch_sgd() -> None:
    # One model, one lot per epoch: the same as torch.optim.SGD on the members, whatever the order within the lot.
    work = job(NoDefense(), epochs=6, lots=Lots(60, 60, 6))
    included = masks(1)
    found = train(work, included, [3], device="cpu").one(0)
    module = work.recipe.architecture.build((12,), 3, seed=3, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    x, y = torch.from_numpy(work.records.x[included[0]]).double(), torch.from_numpy(work.records.y[included[0]])
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    assert difference(dict(found.named_parameters()), dict(module.named_parameters())) < 1e-10


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_adam_and_sgd_follow_torch(momentum: float) -> None:
    torch.manual_seed(0)
    start = torch.randn(1, 4, 3, dtype=torch.float64)
    pairs = [
        (SGD(momentum=momentum, weight_decay=0.1, nesterov=momentum > 0),
         lambda p: torch.optim.SGD([p], lr=0.1, momentum=momentum, weight_decay=0.1, nesterov=momentum > 0)),
        (Adam(weight_decay=0.1), lambda p: torch.optim.Adam([p], lr=0.1, weight_decay=0.1)),
    ]  # fmt: skip
    for rule, make in pairs:
        ours, state = {"w": start.clone()}, rule.initial({"w": start})
        theirs = start[0].clone().requires_grad_()
        optimizer = make(theirs)
        for _ in range(10):
            gradient = torch.randn(4, 3, dtype=torch.float64)
            ours, state = rule.step(ours, {"w": gradient[None]}, state, torch.tensor([0.1], dtype=torch.float64))
            theirs.grad = gradient
            optimizer.step()
        assert difference(ours, {"w": theirs[None]}) < 1e-12


def naive_clipped_sum(module: nn.Module, x: torch.Tensor, y: torch.Tensor, threshold: float) -> list[torch.Tensor]:
    total = [torch.zeros_like(p) for p in module.parameters()]
    for one, label in zip(x, y, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(module(one[None]), label[None]), list(module.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        for part, gradient in zip(total, gradients, strict=True):
            part += gradient * min(1.0, threshold / float(norm))
    return total


def clipped_sum(architecture: Architecture, records: Records, precision: Precision, threshold: float) -> nn.Module:
    """Return the model whose weights moved by exactly minus the clipped sum of one full lot (no noise)."""
    n = len(records)
    recipe = Recipe(
        architecture=architecture, lots=Lots(n, n, 1), learning_rate=float(n), optimizer=SGD(), precision=precision
    )
    rule = DPSGD(noise_multiplier=0.0, max_grad_norm=threshold)
    return train(Job(recipe, rule, records), np.ones((1, n), dtype=bool), [7], device="cpu").one(0)


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "vgg", "resnet"])
def test_clipped_sum_is_that_of_a_naive_loop(architecture: str) -> None:
    options = {"vgg": {"width": 0.125}}.get(architecture, {})
    net = Architecture(architecture, options)
    records = pool(6, image=True)
    moved = clipped_sum(net, records, Precision.FLOAT32, 0.3)
    start = net.build((1, 8, 8), 3, seed=7)
    expected = naive_clipped_sum(start, torch.from_numpy(records.x), torch.from_numpy(records.y), 0.3)
    for (name, before), after, total in zip(start.named_parameters(), moved.parameters(), expected, strict=True):
        scale = max(float(total.abs().max()), 1e-3)
        error = (before - after - total).detach().abs().max()
        assert float(error) < 1e-5 * scale + 1e-6, name  # 1e-6: rounding of weight - step


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FLOAT32, 1e-5), (Precision.FLOAT64, 1e-6)])
def test_clipped_sum_is_that_of_opacus(precision: Precision, tolerance: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer
    records = pool(24, image=True)
    threshold = 0.2
    moved = clipped_sum(CNN, records, precision, threshold)
    start = CNN.build((1, 8, 8), 3, seed=7, dtype=precision.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = GradSampleModule(CNN.build((1, 8, 8), 3, seed=7, dtype=precision.dtype))
        optimizer = DPOptimizer(
            torch.optim.SGD(wrapped.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=threshold,
            expected_batch_size=1,
        )
        x = torch.from_numpy(records.x).to(precision.dtype)
        F.cross_entropy(wrapped(x), torch.from_numpy(records.y)).backward()
        optimizer.clip_and_accumulate()
    for before, after, theirs in zip(start.parameters(), moved.parameters(), wrapped.parameters(), strict=True):
        assert float((before - after - theirs.summed_grad).detach().abs().max()) < tolerance


def test_noise_has_the_stated_scale_and_never_repeats() -> None:
    # One record whose gradient is clipped to nearly nothing: what moves the weights is the noise alone.
    records = pool(40)
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [64]}),
        lots=Lots(20, 5, 3),
        learning_rate=5.0,
        optimizer=SGD(),
        precision=Precision.FLOAT64,
    )
    threshold, multiplier = 1e-9, 1.7e9  # standard deviation 1.7 on the sum
    work = Job(recipe, DPSGD(noise_multiplier=multiplier, max_grad_norm=threshold), records)
    seen: list[torch.Tensor] = []
    inner = ClippedGaussian.release

    def spy(self, sums, statistic_sums, state, noise):  # type: ignore[no-untyped-def]
        noisy, after = inner(self, sums, statistic_sums, state, noise)
        seen.append(torch.cat([(noisy[name] - sums[name]).flatten() for name in sums]))
        return noisy, after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClippedGaussian, "release", spy)
        train(work, np.ones((2, 40), dtype=bool), [1, 2], width=2, device="cpu")
    assert len(seen) == 2 * recipe.lots.steps
    draws = torch.stack(seen)
    from scipy.stats import kstest

    assert kstest(draws.flatten().numpy() / 1.7, "norm").pvalue > 1e-3
    correlations = np.corrcoef(draws.numpy())
    assert np.abs(correlations - np.eye(len(draws))).max() < 5 / np.sqrt(draws.shape[1])


def test_micro_batches_change_memory_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    work = job(DEFENSES[1], epochs=3)
    whole = train(work, masks(2), [1, 2], device="cpu")
    monkeypatch.setitem(engine.LARGEST_BYTES, "cpu", 3 * 8 * 300)  # room for very few examples at once
    parts = train(work, masks(2), [1, 2], device="cpu")
    assert difference(whole.parameters, parts.parameters) < 1e-12


def test_normaliser_is_public() -> None:
    # The step of one record that is alone must not grow because it is alone: the divisor is the nominal lot size.
    records = pool(40)
    included = np.zeros((1, 40), dtype=bool)
    included[0, 3] = True
    recipe = Recipe(
        architecture=MLP, lots=Lots(20, 20, 1), learning_rate=1.0, optimizer=SGD(), precision=Precision.FLOAT64
    )
    moved = train(Job(recipe, DPSGD(noise_multiplier=0.0, max_grad_norm=0.1), records), included, [1], device="cpu")
    start = MLP.build((12,), 3, seed=1, dtype=torch.float64)
    step = torch.cat([(a - b).flatten() for a, b in zip(start.parameters(), moved.one(0).parameters(), strict=True)])
    assert float(step.detach().norm()) == pytest.approx(0.1 / 20, rel=1e-6)


def test_a_gradient_that_is_not_finite_counts_for_nothing() -> None:
    records = pool(20)
    huge = records.x.copy()
    huge[4] = 3e38  # its loss overflows in float32
    broken = replace(records, x=huge)
    recipe = Recipe(architecture=MLP, lots=Lots(20, 20, 3), learning_rate=0.5, optimizer=SGD())
    everyone = np.ones((1, 20), dtype=bool)
    found = train(Job(recipe, DPSGD(noise_multiplier=1.0), broken), everyone, [1], device="cpu")
    assert all(bool(value.isfinite().all()) for value in found.parameters.values())


def test_divergence_is_an_error() -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(job(NoDefense(), epochs=30, learning_rate=1e9, optimizer=SGD()), masks(1), [1], device="cpu")


@pytest.mark.parametrize(
    ("factory", "defense", "remedy"),
    [("batch_norm_net", DEFENSES[1], "GroupNorm"), ("dropout_net", NoDefense(), "set its probability to 0")],
)
def test_layers_that_cannot_be_trained_faithfully_are_refused(factory: str, defense: Defense, remedy: str) -> None:
    work = job(defense, architecture=Architecture(f"{__name__}:{factory}", allow_code=True))
    with pytest.raises(TrainingError, match=remedy):
        train(work, masks(1), [1], device="cpu")


def test_batch_norm_without_a_rule_trains_as_in_torch() -> None:
    work = job(NoDefense(), epochs=6, lots=Lots(60, 60, 6), architecture=BATCH_NORM)
    included = masks(1)
    found = train(work, included, [3], device="cpu").one(0)
    module = work.recipe.architecture.build((12,), 3, seed=3, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    x, y = torch.from_numpy(work.records.x[included[0]]).double(), torch.from_numpy(work.records.y[included[0]])
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    assert found.state_dict().keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-9, atol=1e-10, msg=name)


def test_batch_norm_does_not_see_padding_nor_the_stack() -> None:
    # Models of one stack have last lots of different sizes, so some rows are padding.
    work = job(NoDefense(), architecture=BATCH_NORM)
    included, seeds = masks(4), [1, 2, 3, 4]
    together = train(work, included, seeds, width=4, device="cpu")
    apart = train(work, included, seeds, width=1, device="cpu")
    assert difference(together.parameters, apart.parameters) < 1e-8
    again = model_of(work, together.to_bytes(2))
    assert np.array_equal(again.logits(work.records.x)[0], together.logits(work.records.x)[2])


class InPlace(nn.Module):
    """Writes into a tensor of its own, which `vmap` over models refuses."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(inputs, 6), nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        room = torch.zeros(len(x), 6, dtype=x.dtype)
        room += self.inner(x).tanh()
        return self.last(room)


def in_place_net(shape: tuple[int, ...], classes: int) -> nn.Module:
    return InPlace(shape[0], classes)


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_a_network_that_cannot_be_mapped_is_trained_all_the_same(
    defense: Defense, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_functions, "_said", set())
    work = job(defense, architecture=Architecture(f"{__name__}:in_place_net", allow_code=True))
    together = train(work, masks(3), [1, 2, 3], width=3, device="cpu")
    assert caplog.text.count("cannot be mapped over models") == 1
    apart = train(work, masks(3), [1, 2, 3], width=1, device="cpu")
    assert difference(together.parameters, apart.parameters) < 1e-8


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_augmentation_is_seeded_by_model_and_step(defense: Defense) -> None:
    plain = job(defense, image=True, augmentation=Augmentation())
    moved = job(defense, image=True, augmentation=Augmentation(flip=True, shift=1))
    included, seeds = masks(3), [1, 2, 3]
    together = train(moved, included, seeds, width=3, device="cpu")
    assert difference(together.parameters, train(moved, included, seeds, width=1, device="cpu").parameters) < 1e-8
    assert difference(together.parameters, train(plain, included, seeds, width=3, device="cpu").parameters) > 1e-3
    with pytest.raises(TrainingError, match="images"):
        train(job(defense, augmentation=Augmentation(flip=True)), included, seeds, device="cpu")


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_out_of_memory_halves_the_stack_and_loses_nothing(
    defense: Defense, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, included, seeds = job(defense), masks(5), [1, 2, 3, 4, 5]
    expected = train(work, included, seeds, width=1, device="cpu")
    run, widths = engine.ModelStack.run, []

    def narrow(self, meter):  # type: ignore[no-untyped-def]
        widths.append(len(self.seeds))
        if len(self.seeds) > 2:
            meter(len(self.seeds))  # some of it was done before memory ran out
            raise failure
        return run(self, meter)

    seen: list[Progress] = []
    monkeypatch.setattr(engine.ModelStack, "run", narrow)
    found = train(work, included, seeds, width=5, device="cpu", on_progress=seen.append)
    assert widths == [5, 3, 2, 1, 2]
    assert difference(found.parameters, expected.parameters) < 1e-8
    assert seen[-1].done == seen[-1].total
    assert "5 of 5 models done" in seen[-1].detail


def test_out_of_memory_with_one_model_halves_its_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    work = job(DEFENSES[1])
    expected = train(work, masks(1), [1], device="cpu")
    largest: list[int] = []
    run = engine.ModelStack.run

    def narrow(self, meter):  # type: ignore[no-untyped-def]
        largest.append(self._largest_lot)
        if self._largest_lot > 4:
            raise MemoryError
        return run(self, meter)

    monkeypatch.setattr(engine.ModelStack, "run", narrow)
    monkeypatch.setitem(engine.LARGEST_BYTES, "cpu", 40 * 8 * 16)
    assert difference(train(work, masks(1), [1], device="cpu").parameters, expected.parameters) < 1e-12
    assert largest[0] > 4 >= largest[-1]
    monkeypatch.setattr(engine.ModelStack, "run", lambda self, meter: (_ for _ in ()).throw(MemoryError()))
    for defense in DEFENSES:
        with pytest.raises(TrainingError, match="not enough memory"):
            train(job(defense), masks(1), [1], device="cpu")


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_compiled_training_is_the_same_to_rounding(defense: Defense) -> None:
    work, included = job(defense, lots=Lots(30, 30, 2)), masks(2)
    plain = train(work, included, [1, 2], width=2, device="cpu")
    compiled = train(work, included, [1, 2], width=2, device="cpu", compiled=True)
    assert difference(plain.parameters, compiled.parameters) < 1e-8


def test_progress_counts_models_and_examples() -> None:
    seen: list[Progress] = []
    train(job(NoDefense(), epochs=3), masks(4), [1, 2, 3, 4], width=2, device="cpu", on_progress=seen.append)
    assert [progress.done for progress in seen] == [2, 4, 6, 8, 10, 12]
    assert all(progress.total == 12 for progress in seen)
    assert "2 of 4 models done" in seen[2].detail
    assert "examples/s" in seen[2].detail


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 60\)"):
        train(job(NoDefense()), masks(3), [1, 2], device="cpu")
    with pytest.raises(ValueError, match="no records"):
        train(job(NoDefense()), np.zeros((1, 60), dtype=bool), [1], device="cpu")
