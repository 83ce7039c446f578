"""Distillation on targets whose labels teach nothing, its bookkeeping of queries, and ART's extraction beside it."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.extraction.distillation import Distillation, made_up
from attacks.protocol import ExtractedModel
from attacks.target import Target
from attacks.view import View, expose
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine.training import train
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.recipe import Recipe
from defenses.records import Column, Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD

FEATURES, CLASSES = 12, 4


def table(count: int, seed: int) -> Records:
    """Records with labels drawn at random: who learns from them learns nothing."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, FEATURES)).astype(np.float32)
    return Records(x, rng.integers(0, CLASSES, count), CLASSES, Table((), "y", ()))


class Teacher(nn.Module):
    """A random network that uses all classes; keeps what it is asked."""

    def __init__(self, seed: int = 0, *, scale: float = 10.0) -> None:
        super().__init__()
        network = Architecture("mlp", {"hidden": [24], "activation": "tanh"})
        self.network = network.build((FEATURES,), CLASSES, seed=seed)
        with torch.no_grad():
            self.network[1].weight *= 6  # type: ignore[index,operator]
            middle = self.network(torch.rand(2000, FEATURES, generator=torch.Generator().manual_seed(0))).mean(0)
        self.register_buffer("middle", middle)
        self.scale = scale
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x)
        found: Tensor = self.scale * (self.network(x) - self.middle)
        return found


CANDIDATES, POPULATION = table(1000, 1), table(400, 2)


def steal(
    attack: Distillation, model: nn.Module, population: Records = POPULATION, *, seed: int = 0
) -> tuple[ExtractedModel, View]:
    view = expose(Target(model, CANDIDATES, "d", population=population), attack.requires)
    return attack.run(view, rng=np.random.default_rng(seed)), view


def labels(model: nn.Module, x: np.ndarray) -> np.ndarray:
    return np.asarray(module_logits(model, x).argmax(axis=1))


def fidelity(copied: nn.Module | None, model: nn.Module, x: np.ndarray = CANDIDATES.x) -> float:
    assert copied is not None
    return float((labels(copied, x) == labels(model, x)).mean())


def weights(model: nn.Module | None) -> np.ndarray:
    assert model is not None
    return np.concatenate([part.detach().numpy().ravel() for part in model.parameters()])


@pytest.mark.parametrize(("labels_only", "least"), [(False, 0.85), (True, 0.68)])
def test_copies_agree_with_the_target_more_and_more(labels_only: bool, least: float) -> None:
    teacher = Teacher()
    attack = Distillation(queries=(15, 390), labels_only=labels_only, own_labels=0.0)
    claim, view = steal(attack, teacher)
    assert [copied.queries for copied in claim.copies] == [15, 390]
    assert view.queries == sum(map(len, teacher.asked)) == 390
    first, last = (fidelity(copied.model, teacher) for copied in claim.copies)
    assert last > least
    assert last > first + 0.05
    assert fidelity(claim.without_target, teacher) < 0.4  # the labels are random


def test_probabilities_say_more_than_labels() -> None:
    teacher = Teacher()
    soft, hard = (
        steal(Distillation(queries=(200,), labels_only=labels_only, own_labels=0.0), teacher)[0].copies[0].model
        for labels_only in (False, True)
    )
    assert fidelity(soft, teacher) > fidelity(hard, teacher) + 0.02


def test_logits_are_matched_too() -> None:
    # Cross-entropy alone leaves open by how much an unlikely class is unlikely: the error is then 0.48.
    teacher = Teacher(scale=30)
    claim, _ = steal(Distillation(queries=(200,), own_labels=0.0), teacher)
    copied, target = (module_logits(model, CANDIDATES.x) for model in (claim.copies[0].model, teacher))
    target -= target.mean(axis=1, keepdims=True)
    assert np.abs(copied - copied.mean(axis=1, keepdims=True) - target).mean() < 0.36 * np.abs(target).mean()


def test_own_labels_help_while_answers_are_few() -> None:
    teacher = Teacher()
    population = replace(POPULATION, y=labels(teacher, POPULATION.x))  # labels as good as the target's
    teacher.asked.clear()
    attack = Distillation(queries=(15,), active=False)
    with_labels, alone = (
        steal(replace(attack, own_labels=weight), teacher, population)[0].copies[0].model for weight in (0.2, 0.0)
    )
    assert fidelity(with_labels, teacher) > fidelity(alone, teacher) + 0.1


def test_undecided_records_are_asked_about_first() -> None:
    population = replace(POPULATION, y=labels(Teacher(), POPULATION.x))
    asked = {}
    for active in (True, False):
        teacher = Teacher()
        claim, _ = steal(Distillation(queries=(80,), active=active, steps=200), teacher, population)
        asked[active] = torch.cat(teacher.asked).numpy()
        assert claim.without_target is not None
        logits = np.sort(module_logits(claim.without_target, asked[active]), axis=1)
        every = np.sort(module_logits(claim.without_target, population.x), axis=1)
        share = np.mean((logits[:, -1] - logits[:, -2])[:, None] > (every[:, -1] - every[:, -2]))
        assert share < 0.15 if active else share > 0.3
    rows = {row.tobytes() for row in population.x}
    assert all(row.tobytes() in rows for x in asked.values() for row in x)


def test_who_asks_nothing_learns_nothing_of_the_target() -> None:
    attack = Distillation(queries=(30,), steps=60)
    one, other = (steal(attack, Teacher(seed))[0] for seed in (0, 1))
    assert np.array_equal(weights(one.without_target), weights(other.without_target))
    assert not np.array_equal(weights(one.copies[0].model), weights(other.copies[0].model))


def test_equal_randomness_gives_equal_copies_and_no_global_state_is_touched() -> None:
    attack = Distillation(queries=(30, 50), steps=60)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    one, again, other = (steal(attack, Teacher(), seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    for k in range(2):
        assert np.array_equal(weights(one.copies[k].model), weights(again.copies[k].model))
    assert not np.array_equal(weights(one.copies[0].model), weights(other.copies[0].model))


def test_budgets_beyond_the_population_are_made_of_it() -> None:
    teacher = Teacher()
    small = POPULATION.take(np.arange(60))
    claim, view = steal(Distillation(queries=(50, 400), own_labels=0.0), teacher, small)
    assert view.queries == 400
    assert "340 queries were made of population records, of which there are 60" in claim.notes[0]
    rows = {row.tobytes() for row in small.x}
    asked = torch.cat(teacher.asked).numpy()
    assert 60 <= sum(row.tobytes() in rows for row in asked) < 63  # all, and hardly one of them again
    first, last = (fidelity(copied.model, teacher) for copied in claim.copies)
    assert last > first + 0.02


def test_made_up_rows_take_whole_columns_from_two_rows() -> None:
    columns = (Column("age", (), 0, 100, 0, 1), Column("job", ("a", "b", "c"), 0, 0, 1, 3), Column("z", (), 0, 1, 4, 1))
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(50), np.eye(3)[rng.integers(0, 3, 50)], rng.random(50)]).astype(np.float32)
    records = Records(x, np.zeros(50, np.int64), 2, Table(columns, "y", ()))
    made = made_up(records, 500, rng)
    assert made.dtype == np.float32
    assert made.shape == (500, 5)
    assert (made[:, 1:4].sum(axis=1) == 1).all()
    ages, others = (dict(zip(x[:, j].tolist(), range(50), strict=True)) for j in (0, 4))
    parents = np.array([[ages[row[0]], others[row[4]]] for row in made.tolist()])
    assert 0.4 < np.mean(parents[:, 0] != parents[:, 1]) < 0.6
    job = made[:, 1:4].argmax(axis=1)
    assert all(job[i] in x[parents[i], 1:4].argmax(axis=1) for i in np.flatnonzero(parents[:, 0] != parents[:, 1]))


def test_made_up_images_are_moved_by_a_little() -> None:
    x = np.zeros((1, 2, 30, 28), np.float32)
    x[:, :, 10, 20] = 1
    made = made_up(Records(x, np.zeros(1, np.int64), 2, Image()), 400, np.random.default_rng(0))
    assert made.shape == (400, 2, 30, 28)
    assert made.dtype == np.float32
    assert np.array_equal(made[:, 0], made[:, 1])
    image, row, column = np.nonzero(made[:, 0])
    assert np.array_equal(image, np.arange(400))
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == {
        (r, c) for r in range(8, 13) for c in range(18, 23)
    } - {(10, 20)}
    assert len(made_up(Records(x, np.zeros(1, np.int64), 2, Image()), 0, np.random.default_rng(0))) == 0


def test_images_are_copied_by_a_convolutional_network() -> None:
    rng = np.random.default_rng(0)
    records = Records(rng.random((70, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 70), 3, Image())
    model = Architecture("mlp").build((1, 8, 8), 3, seed=0)
    attack = Distillation(queries=(20,), steps=20)
    view = expose(Target(model, records, "d", population=records), attack.requires)
    copied = attack.run(view, rng=rng).copies[0].model
    assert any(isinstance(part, nn.Conv2d) for part in copied.modules())
    assert not copied.training


def test_answers_of_zero_and_one_are_learnt_from() -> None:
    teacher = Teacher(scale=1e4)  # nearly every probability is exactly 0 or 1
    claim, view = steal(Distillation(queries=(200,), own_labels=0.0), teacher)
    assert np.isin(view.probabilities(CANDIDATES.x), [0, 1]).mean() > 0.9
    assert np.isfinite(module_logits(claim.copies[0].model, CANDIDATES.x)).all()
    assert fidelity(claim.copies[0].model, teacher) > 0.55


def test_targets_that_say_nothing() -> None:
    with pytest.raises(NotApplicableError, match="30 of 30 records with values that are not finite"):
        steal(Distillation(queries=(30,)), Teacher(scale=float("nan")))
    claim, _ = steal(Distillation(queries=(30,), own_labels=0.0), Teacher(scale=0.0))
    assert np.ptp(module_logits(claim.copies[0].model, POPULATION.x)) < 1


def test_it_sees_what_it_requires_and_no_more() -> None:
    soft, hard = Distillation(), Distillation(labels_only=True)
    assert soft.requires.access == {Capability.PROBABILITIES}
    assert hard.requires.access == {Capability.LABELS}
    target = Target(Teacher(), CANDIDATES, "d", population=POPULATION)
    for attack in (soft, hard):
        with pytest.raises(NotDisclosedError, match="records in question"):
            _ = expose(target, attack.requires).candidates
        with pytest.raises(NotApplicableError, match="population"):
            expose(replace(target, population=None), attack.requires)
        with pytest.raises(NotApplicableError, match="no population record"):
            steal(attack, Teacher(), POPULATION.take(np.arange(0)))


def test_wrong_settings() -> None:
    wrong = [("queries", ()), ("queries", (0, 10)), ("queries", (100, 100)), ("queries", (300, 100))]
    wrong += [("own_labels", -0.1), ("own_labels", float("nan")), ("epochs", 0), ("steps", 0)]  # type: ignore[list-item]
    for name, value in wrong:
        with pytest.raises(ValueError, match=name):
            Distillation(**{name: value})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network", "members"), [("location30", "mlp", 1500), ("mnist", "cnn", 2000)])
def test_it_is_at_least_level_with_art(data_dir: Path, name: str, network: str, members: int) -> None:
    """The same records to choose from, the same number of queries, the same architecture and number of steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.extraction import CopycatCNN, KnockoffNets
        from art.estimators.classification import PyTorchClassifier

        from auditor.datasets import load

    every, budgets = load(name, data_dir=data_dir), (100, 300, 1000)
    order = np.random.default_rng(0).permutation(len(every))
    pool, population = every.take(order[:members]), every.take(order[members : members + 1700])
    outside = every.take(order[members + 1700 : members + 4700])
    recipe = Recipe(
        architecture=Architecture(network), lots=Lots(members, 32, 20), learning_rate=0.05, optimizer=SGD(0.9)
    )
    target = train(Job(recipe, NoDefense(), pool), np.ones((1, members), bool), [7], device="cpu").one(0)

    def wrapped(module: nn.Module) -> PyTorchClassifier:
        adam = torch.optim.Adam(module.parameters(), lr=1e-3)
        loss = nn.CrossEntropyLoss()
        return PyTorchClassifier(module, loss, every.shape, every.classes, optimizer=adam, device_type="cpu")

    def art(kind: str, budget: int) -> float:
        options = {"activation": "relu"} if network == "cnn" else {"hidden": [256]}
        student = wrapped(Architecture(network, options).build(every.shape, every.classes, seed=0))
        settings = {"batch_size_fit": 64, "batch_size_query": 64, "nb_stolen": budget}
        settings["nb_epochs"] = max(60, 600 * 64 // budget)
        if kind == "copycat":
            attack = CopycatCNN(wrapped(target), **settings)
        else:  # it takes what the estimator predicts for probabilities
            answers = wrapped(nn.Sequential(target, nn.Softmax(dim=1)))
            attack = KnockoffNets(answers, use_probability=True, verbose=False, **settings)
        before = np.random.get_state()  # noqa: NPY002
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002
            copied = attack.extract(population.x, thieved_classifier=student).model
        np.random.set_state(before)  # noqa: NPY002
        return fidelity(copied, target, outside.x)

    for labels_only, kind in ((False, "knockoff"), (True, "copycat")):
        attack = Distillation(queries=budgets, labels_only=labels_only)
        view = expose(Target(target, outside, "d", population=population), attack.requires)
        claim = attack.run(view, rng=np.random.default_rng(0))
        for copied, budget in zip(claim.copies, budgets, strict=True):
            assert fidelity(copied.model, target, outside.x) > art(kind, budget) - 0.005, (kind, budget)
