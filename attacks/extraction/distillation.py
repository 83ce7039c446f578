"""Distillation: a copy of a target of any kind, trained on its answers to records of the attacker's choice."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.capabilities import Capability
from attacks.protocol import Attack, ExtractedModel, Stolen
from attacks.record_spec import RecordSpec
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.architectures import Architecture
from defenses.ensemble import module_logits
from defenses.progress import OnProgress, Progress, silent
from defenses.records import FloatArray, Image, Records, Table

Float64Array = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-30  # below it, what a class has to say is lost in the squares of its own logarithm
_BATCH, _RATE = 64, 3e-3
_OWN_EPOCHS, _MOST_OWN_STEPS = 20, 4000


@dataclass(frozen=True)
class Distillation(Attack):
    """Ask the target about population records and train a network on what it says, again at every budget.

    The copy learns the logits (log-probabilities, centred over classes) by their squares and the probabilities by their
    cross-entropy; under `labels_only`, the labels. The attacker's own labels of records not yet asked about count a
    little beside the answers, which is what helps while answers are few. Once the population is spent, queries are
    made of it: rows whose columns come from two others, images moved by a few pixels.

    Attributes:
        queries: Budgets at which a copy is made, ascending, at least 1; the population sets no limit.
        labels_only: Whether the target gives its label alone.
        active: Whether the records asked about at each budget are those between whose two likeliest classes the copy
            before is the least decided (the first time, the student without a query); otherwise any.
        own_labels: What one of the attacker's own labels counts beside one answer, at least 0.
        epochs: Passes over the answers, at least 1.
        steps: Steps of 64 answers that a copy is trained for at least; at least 1.

    Source: Orekondy, Schiele and Fritz 2019, "Knockoff Nets"; Jagielski et al. 2020, "High Accuracy and High Fidelity
    Extraction of Neural Networks". Deviations: logits are matched besides probabilities, own labels are used, and
    records are chosen by margin, by which fidelity rises the most; made-up queries. On Location-30 (1,500 members)
    fidelity after 100, 300 and 1,000 queries is 0.64, 0.76 and 0.92 (random records and probabilities alone: 0.45,
    0.61, 0.73), and 0.60 without one; with labels only it is 0.63 after 1,000.
    """

    queries: tuple[int, ...] = (100, 300, 1000)
    labels_only: bool = False
    active: bool = True
    own_labels: float = 0.03
    epochs: int = 60
    steps: int = 600

    name = "distillation"
    title = "Distillation"
    paper = "Orekondy et al. 2019, Knockoff Nets: Stealing Functionality of Black-Box Models"
    claims = ExtractedModel
    example = {"steps": 150, "queries": (20, 60)}

    def __post_init__(self) -> None:
        if not self.queries or self.queries[0] < 1 or any(a >= b for a, b in itertools.pairwise(self.queries)):
            raise ValueError(f"queries is {self.queries}; give budgets of at least 1, in ascending order")
        if not (self.own_labels >= 0 and math.isfinite(self.own_labels)) or self.epochs < 1 or self.steps < 1:
            raise ValueError(
                f"own_labels is {self.own_labels}, epochs {self.epochs}, steps {self.steps}; give at least 0, 1 and 1"
            )

    @property
    def requires(self) -> ThreatModel:  # type: ignore[override]
        """Records of the same source, and the target's answers."""
        answers = Capability.LABELS if self.labels_only else Capability.PROBABILITIES
        return ThreatModel(frozenset({answers}), population=True, candidates=False)

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> ExtractedModel:
        """Return a copy at every budget, and the student that never saw an answer."""
        population, before = view.population, view.queries
        # Not a classifier under audit, which only the training loop trains, but an attacker's student on soft labels.
        student = _Student(view.facts, population, self.own_labels, seed=int(rng.integers(2**62)))
        answers = _Answers(view, self.labels_only)
        on_progress(Progress("training copies", 0, len(self.queries) + 1))
        # Labels are overfitted where soft answers are not, and a weak student would make the answers look worth more.
        effort = max(self.steps, min(_OWN_EPOCHS * len(population) // _BATCH, _MOST_OWN_STEPS))
        without = latest = student.fit(answers, np.arange(len(population)), steps=effort)
        left, copies = rng.permutation(len(population)), list[Stolen]()
        for done, budget in enumerate(self.queries, start=1):
            on_progress(Progress("training copies", done, len(self.queries) + 1))
            if self.active and (copies or self.own_labels):  # undecided records alone teach little
                left = left[np.argsort(_margins(latest, population.x[left]), kind="stable")]
            wanted = budget - len(answers)
            asked, left = left[:wanted], left[wanted:]
            answers.ask(population.x[asked])
            answers.ask(made_up(population, wanted - len(asked), rng))
            latest = student.fit(answers, left, steps=self._steps(budget))
            copies.append(Stolen(view.queries - before, latest))
        beyond = max(0, self.queries[-1] - len(population))
        note = f"{beyond:,} queries were made of population records, of which there are {len(population):,}."
        return ExtractedModel(tuple(copies), without, (note,) if beyond else ())

    def _steps(self, answers: int) -> int:
        return max(self.steps, -(-self.epochs * answers // _BATCH))


@dataclass
class _Answers:
    """What the target has said so far."""

    view: View
    labels_only: bool
    x: list[FloatArray] = field(default_factory=list)
    said: list[Float64Array] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.x))

    def ask(self, x: FloatArray) -> None:
        """Ask about records (n, *shape), if there are any, and keep the answers as probabilities (n, C)."""
        if not len(x):
            return
        view = self.view
        said = np.eye(view.facts.classes)[view.labels(x)] if self.labels_only else view.probabilities(x)
        self.x.append(x)
        self.said.append(said)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return records, probabilities and logits, float32; a probability of 0 counts as the least that was seen."""
        said = np.concatenate(self.said)
        logs = np.log(np.maximum(said, max(LEAST_PROBABILITY, said[said > 0].min())))
        logits = logs - logs.mean(axis=1, keepdims=True)
        return (
            torch.from_numpy(np.concatenate(self.x)),
            torch.from_numpy(said).float(),
            torch.from_numpy(logits).float(),
        )


class _Scaled(nn.Module):
    """A network whose logits are in units of `scale`, so that it starts where the target's are."""

    def __init__(self, network: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, C)."""
        logits: Tensor = self.network(x) * self.scale
        return logits


@dataclass(frozen=True)
class _Student:
    """How copies are trained: always from the same weights, since who has more answers need not build on fewer."""

    facts: RecordSpec
    population: Records
    own_labels: float
    seed: int

    def fit(self, answers: _Answers, own: npt.NDArray[np.int64], *, steps: int) -> nn.Module:
        """Return a network trained on the answers, and on own labels of population records at these indices."""
        facts, generator = self.facts, torch.Generator().manual_seed(self.seed)
        own_x = torch.from_numpy(self.population.x[own])
        own_y = torch.from_numpy(self.population.y[own])
        nothing = torch.empty(0, facts.classes)
        x, said, logits = answers.tensors() if len(answers) else (own_x[:0], nothing, nothing)
        soft = bool(len(x)) and not answers.labels_only
        scale = logits.square().mean().sqrt() if soft else torch.tensor(1.0)
        scale = torch.where(scale > 0, scale, 1.0)
        model = _Scaled(_architecture(facts).build(facts.shape, facts.classes, seed=self.seed), scale)
        optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        weight = self.own_labels * len(own) / len(x) if len(x) else 1.0
        asked, labelled = _batches(len(x), generator), _batches(len(own) if weight else 0, generator)
        for _, at, beside in zip(range(steps), asked, labelled, strict=False):
            guessed = model(torch.cat([x[at], own_x[beside]]))
            here, there = guessed[: len(at)], guessed[len(at) :]
            loss = torch.zeros(())
            if len(at):
                loss = F.cross_entropy(here, said[at])
            if soft:
                centred = here - here.mean(dim=1, keepdim=True)
                loss = loss + ((centred - logits[at]) / scale).square().sum(dim=1).mean()
            if len(beside):
                loss = loss + weight * F.cross_entropy(there, own_y[beside])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        return model.eval()


def _architecture(facts: RecordSpec) -> Architecture:
    """Return what an attacker takes who does not know the target's network."""
    if isinstance(facts.kind, Image) and len(facts.shape) == 3 and min(facts.shape[1:]) >= 8:
        return Architecture("cnn", {"activation": "relu"})
    return Architecture("mlp", {"hidden": [256]})


def _batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices into `count` records for ever, one shuffled pass after the other."""
    size, waiting = min(_BATCH, count), torch.empty(0, dtype=torch.int64)
    while True:
        if len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]


def _margins(model: nn.Module, x: FloatArray) -> Float64Array:
    """Return how far the likeliest class of each record (n, *shape) is ahead of the next, in logits (n,)."""
    if not len(x):
        return np.empty(0)
    two = np.partition(module_logits(model, x), -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def made_up(population: Records, count: int, rng: np.random.Generator) -> FloatArray:
    """Return records (count, *shape) made of those of a population (z).

    A row takes each column from one of two rows, so that it stays within ranges and categories; an image is moved by up
    to a fourteenth of its size each way, its border repeated.

    Args:
        population: z rows or images, z at least 1.
        count: At least 0.
        rng: Source of randomness.
    """
    first = rng.integers(len(population), size=count)
    one = population.x[first]
    if isinstance(population.kind, Table):
        other = population.x[(first + 1 + rng.integers(max(1, len(population) - 1), size=count)) % len(population)]
        columns = np.arange(math.prod(population.shape))
        for column in population.kind.columns:
            columns[column.start : column.start + column.width] = column.start
        chosen = (rng.random((count, len(columns))) < 0.5)[:, columns]
        return np.asarray(np.where(chosen.reshape(one.shape), one, other))
    height, width = population.shape[-2:]
    reach = max(1, min(height, width) // 14)
    each = range(-reach, reach + 1)
    moves = np.array([move for move in itertools.product(each, each) if any(move)])
    down, right = moves[rng.integers(len(moves), size=count)].T[:, :, None]
    rows = np.clip(np.arange(height) - down, 0, height - 1)[:, None, :, None]
    across = np.clip(np.arange(width) - right, 0, width - 1)[:, None, None, :]
    return np.take_along_axis(np.take_along_axis(one, rows, axis=-2), across, axis=-1)
