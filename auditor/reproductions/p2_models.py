"""What P2's experiment is made of: data, schemes and models by number of records and epochs, and its attack."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from attacks.gradient_leakage.label_recovery import recover_labels
from attacks.gradient_leakage.shared_gradients import shared_under
from auditor.context import RunContext
from auditor.datasets import load
from auditor.statistics import membership
from defenses.architectures import Architecture
from defenses.defense import Defense, Job
from defenses.engine.code_digest import digest_of_training
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.store import model_of
from defenses.engine.training import train
from defenses.ensemble import module_logits
from defenses.gradients import GradientRule
from defenses.modes import Mode
from defenses.randomness import derive, stream
from defenses.recipe import Recipe
from defenses.records import BoolArray, FloatArray, IntArray, Records
from defenses.sampling import Lots
from defenses.schemes.layerwise_dp import STATED_DELTA, LayerwiseDP
from defenses.schemes.none import NoDefense
from defenses.updates import SGD, Tensors
from reports.records.estimate import Estimate

CLIP, COMPONENTS = 4.0, 60  # the paper's
PUBLIC, MEMBERS = 5_000, 55_000  # of the 60,000 training images
LOT, HIDDEN, LAYERS, LEVEL = 600, 1000, 2, 0.95
SEED = derive(0, "reproduce P2", "model")


def lots_of(records: int, epochs: int) -> Lots:
    """Return the lots of a run."""
    return Lots(records, max(1, min(LOT, records // 10)), epochs)


def scheme_of(sigma: float, mode: Mode = Mode.REPAIRED) -> LayerwiseDP:
    """Return the scheme at the paper's parameters; equal shares say that the network has two layers."""
    return LayerwiseDP(
        mode=mode,
        noise_multiplier=sigma,
        max_grad_norm=CLIP,
        delta=STATED_DELTA,
        components=COMPONENTS,
        clip_shares=(1 / LAYERS,) * LAYERS,
    )


def inferred_labels(
    model: nn.Module, x: FloatArray, y: IntArray, rule: GradientRule | None, *, seed: int, device: str
) -> Estimate:
    """Guess each record's label from its gradient at a trained network, and return the share of right guesses.

    Args:
        model: Public.
        x: (n, *shape) records, each of which sends the gradient of a lot of its own.
        y: (n,) labels.
        rule: What the scheme does to a gradient; None sends it plain.
        seed: Names the noise.
        device: Where to compute.
    """
    model = model.to(device)
    records, labels = torch.from_numpy(x)[:, None].to(device), torch.from_numpy(y)[:, None].to(device)
    last = list(dict(model.named_parameters()))[-1]
    sent = shared_under(model, records, labels, rule, seed=seed)[last]
    right = recover_labels(sent, batch_size=1).labels[:, 0] == y
    return membership.rate(int(right.sum()), len(y), level=LEVEL)


class Snapshots:
    """A probe without canaries, which keeps the weights after some epochs.

    Args:
        lots: Of the run.
        epochs: After which.
    """

    def __init__(self, lots: Lots, epochs: Sequence[int]) -> None:
        self._last, self._epochs = lots.steps_per_epoch - 1, frozenset(epochs)
        self.kept: dict[int, Tensors] = {}

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Return none."""
        return {name: Materialised(value.new_zeros((0, *value.shape))) for name, value in parameters.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return none."""
        return np.zeros(0, dtype=np.bool_)

    def read(self, reading: Reading) -> None:
        """Keep the weights where an epoch that is wanted ends."""
        epoch, position = reading.step
        if position == self._last and epoch + 1 in self._epochs:
            self.kept[epoch + 1] = {name: value.clone().cpu() for name, value in reading.after.items()}


@dataclass(frozen=True)
class Bench:
    """Data of the experiment, and models by scheme, number of records and epochs, all of one seed.

    Attributes:
        scale: Share of the paper's numbers of records.
        context: Where to work.
    """

    scale: float
    context: RunContext

    @cached_property
    def pool(self) -> Records:
        """The training images in a fixed order, the public ones last."""
        found = load("mnist", data_dir=self.context.data_dir)
        return found.take(stream(0, "reproduce P2").permutation(len(found)))

    @cached_property
    def test(self) -> Records:
        """The test images."""
        return load("mnist", split="test", data_dir=self.context.data_dir)

    def members(self, records: int) -> Records:
        """Return so many training images, those of a smaller number among them."""
        return self.pool.take(np.arange(records))

    def scaled(self, records: int) -> int:
        """Return how many records stand for so many of the paper's."""
        return max(100, min(MEMBERS, round(self.scale * records)))

    def models(self, scheme: Defense, records: int, epochs: Sequence[int]) -> dict[int, nn.Module]:
        """Return a model for each number of epochs, in ascending order; what was trained before is not trained again.

        A run of a scheme is watched, and its weights are kept on the way: a shorter run of the same seed would be the
        beginning of it. Without protection there is nothing to watch by, and every length is a run of its own.
        """
        if isinstance(scheme, NoDefense):
            return {number: self._plain(scheme, records, number) for number in sorted(epochs)}
        job = self._job(scheme, records, max(epochs))
        facts = [repr(job.recipe), repr(scheme), job.records.digest, self.context.place, digest_of_training()]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        kept = self.context.workspace.kept("reproduce")
        names = {number: f"{name}-{number}.model" for number in sorted(epochs)}
        found = {number: kept.read(path) for number, path in names.items()}
        if any(content is None for content in found.values()):
            watch, everyone = Snapshots(job.recipe.lots, epochs), np.ones((1, records), dtype=np.bool_)
            last = train(
                job, everyone, [SEED], device=self.context.device, probe=watch, on_progress=self.context.on_progress
            )
            for number, path in names.items():
                own = {f"1.{name}": value[None] for name, value in watch.kept[number].items()}  # behind the front
                content = replace(last, parameters=last.parameters | own).to_bytes()
                kept.write(content, path)
                found[number] = content
        return {number: model_of(job, content).one(0) for number, content in found.items() if content is not None}

    def _plain(self, scheme: Defense, records: int, epochs: int) -> nn.Module:
        store, everyone = self.context.workspace.store(), np.ones((1, records), dtype=np.bool_)
        job, stage = self._job(scheme, records, epochs), f"training the CNN on {records:,} records, {epochs} epochs"
        found = store.train(
            job, everyone, [SEED], device=self.context.device, stage=stage, on_progress=self.context.on_progress
        )
        return found.one(0)

    def _job(self, scheme: Defense, records: int, epochs: int) -> Job:
        plain = isinstance(scheme, NoDefense)
        recipe = Recipe(
            architecture=Architecture("cnn") if plain else Architecture("mlp", {"hidden": [HIDDEN]}),
            lots=lots_of(records, epochs),
            learning_rate=0.1,
            optimizer=SGD(0.9 if plain else 0.0),
        )
        return Job(recipe, scheme, self.members(records), public=self.pool.take(np.arange(-PUBLIC, 0)))

    def accuracy(self, model: nn.Module, records: Records, *, level: float = LEVEL) -> Estimate:
        """Return the share of records that a model gets right."""
        said = module_logits(model, records.x, device=self.context.place).argmax(1)
        return membership.rate(int((said == records.y).sum()), len(records), level=level)
