"""Canaries join a run as records would, and a run that they stay out of does not notice them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad

from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.engine import model_stack as engine
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.store import ModelStore
from defenses.engine.training import train
from defenses.ensemble import Ensemble
from defenses.errors import TrainingError
from defenses.gradients import ClippedGaussian, GradientRule
from defenses.recipe import Precision, Recipe
from defenses.records import BoolArray, Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.none import NoDefense
from defenses.updates import Tensors

MLP = Architecture("mlp", {"hidden": [8]})


@dataclass(frozen=True)
class PerLayer(ClippedGaussian):
    """Clips weights and biases apart, and counts who was clipped."""

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(int(name.endswith("bias")) for name in names)

    def initial(self) -> Tensors:
        return {"clipped": torch.zeros(())}

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        weights, _ = super().factors(norms, y, mask, state)
        return weights, ((weights < 1).any(1) & mask)[:, None].to(norms.dtype)

    def release(self, sums, statistic_sums, state, noise):  # type: ignore[no-untyped-def]
        noisy, _ = super().release(sums, statistic_sums, state, noise)
        return noisy, {"clipped": state["clipped"] + statistic_sums[0]}


@dataclass(frozen=True, kw_only=True)
class LayerwiseSGD(DPSGD):
    def gradient(self, lots: Lots) -> GradientRule:  # type: ignore[override]
        return PerLayer(self.max_grad_norm, self.noise(lots))


@dataclass
class RecordProbe:
    """Two canaries whose gradients are those of two records; the first is always in, the second never."""

    job: Job
    rows: tuple[int, int]
    readings: list[Reading] = field(default_factory=list)
    absent: bool = False

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        module = MLP.build(self.job.records.shape, 3, seed=0, dtype=torch.float64)

        def loss(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(module, parameters, (x[None],)), y[None])

        rows = list(self.rows)
        x, y = torch.from_numpy(self.job.records.x[rows]).double(), torch.from_numpy(self.job.records.y[rows])
        each = [grad(loss)(parameters, *one) for one in zip(x, y, strict=True)]
        return {name: Materialised(torch.stack([one[name] for one in each])) for name in parameters}

    def present(self, seed: int, step: Step) -> BoolArray:
        return np.array([not self.absent, False])

    def read(self, reading: Reading) -> None:
        self.readings.append(reading)


def make_job(defense: DPSGD | NoDefense, n: int = 20, *, epochs: int = 1) -> Job:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    records = Records(x, rng.integers(0, 3, n), 3, Table((), "y", ()))
    recipe = Recipe(architecture=MLP, lots=Lots(n, n, epochs), learning_rate=0.5, precision=Precision.FLOAT64)
    return Job(recipe, defense, records)


def difference(one: Ensemble, other: Ensemble) -> float:
    return max(float((one.parameters[name] - value).abs().max()) for name, value in other.parameters.items())


@pytest.mark.parametrize("scheme", [DPSGD, LayerwiseSGD])
@pytest.mark.parametrize("room", [None, 3 * 8 * 60], ids=["one lot", "micro-batches"])
def test_a_canary_counts_as_a_record_with_that_gradient(
    scheme: type[DPSGD], room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if room:
        monkeypatch.setitem(engine.LARGEST_BYTES, "cpu", room)
    job = make_job(scheme(noise_multiplier=0.7, max_grad_norm=0.4))
    everyone = np.ones((2, 20), dtype=bool)
    without = everyone.copy()
    without[:, 4] = False
    whole = train(job, everyone, [1, 2], width=2, device="cpu")
    # One probe per model: they start from different weights, so their canaries' gradients differ.
    for k, seed in enumerate((1, 2)):
        probed = train(job, without[:1], [seed], device="cpu", probe=RecordProbe(job, (4, 5)))
        assert difference(probed, whole.select([k])) < 1e-12
        assert [trace.state for trace in probed.traces] == [whole.traces[k].state]  # its statistics count too
        plain = train(job, without[:1], [seed], device="cpu")
        assert difference(plain, probed) > 1e-4


def test_a_run_does_not_notice_canaries_that_stay_out_and_readings_are_its_steps() -> None:
    job = make_job(DPSGD(noise_multiplier=1.0), epochs=3)
    everyone, probe = np.ones((2, 20), dtype=bool), RecordProbe(job, (4, 5), absent=True)
    watched = train(job, everyone, [1, 2], width=2, device="cpu", probe=probe)
    assert difference(watched, train(job, everyone, [1, 2], width=2, device="cpu")) == 0
    assert [(reading.seed, reading.step) for reading in probe.readings] == [
        (s, (e, 0)) for e in range(3) for s in (1, 2)
    ]
    for reading in probe.readings:
        for name, before in reading.before.items():
            step = reading.rate * reading.released[name] / job.recipe.lots.batch_size
            torch.testing.assert_close(before - step, reading.after[name])
            assert not torch.equal(reading.released[name], reading.sums[name])
    last = {reading.seed: reading.after for reading in probe.readings}
    assert all(torch.equal(last[2][name], value[1]) for name, value in watched.parameters.items())


def test_what_cannot_be_watched_is_refused() -> None:
    plain, private = make_job(NoDefense()), make_job(DPSGD(noise_multiplier=1.0))
    everyone = np.ones((2, 20), dtype=bool)
    with pytest.raises(TrainingError, match="no rule for per-example gradients"):
        train(plain, everyone, [1, 2], device="cpu", probe=RecordProbe(plain, (0, 1)))
    with pytest.raises(ValueError, match="same seed"):
        train(private, everyone, [1, 1], device="cpu", probe=RecordProbe(private, (0, 1)))


def test_models_start_from_given_weights(tmp_path) -> None:  # type: ignore[no-untyped-def]
    job = make_job(NoDefense())
    everyone = np.ones((2, 20), dtype=bool)
    start = train(job, everyone[:1], [9], device="cpu")
    still = replace(job, initial=start, recipe=replace(job.recipe, learning_rate=1e-300))
    assert difference(train(still, everyone, [1, 2], width=2, device="cpu"), start.select([0, 0])) == 0
    # What starts elsewhere is another model: the store must not take one for the other.
    store = ModelStore(tmp_path)
    found = [
        store.train(each, everyone, [1, 2], device="cpu", width=2)
        for each in (
            job,
            replace(job, initial=start),
            replace(job, initial=train(job, everyone[:1], [8], device="cpu")),
        )
    ]
    assert (store.trained, store.loaded) == (6, 0)
    assert difference(found[1], found[2]) > 1e-3
    again = store.train(replace(job, initial=start), everyone, [1, 2], device="cpu", width=2)
    assert (store.trained, store.loaded) == (6, 2)
    assert difference(again, found[1]) == 0


def test_weights_of_another_network_are_refused() -> None:
    job = make_job(NoDefense())
    start = train(job, np.ones((1, 20), dtype=bool), [9], device="cpu")
    other = replace(job.recipe, architecture=Architecture("mlp", {"hidden": [9]}))
    with pytest.raises(ValueError, match="pretrain the same network"):
        replace(job, initial=start, recipe=other)
    with pytest.raises(ValueError, match="give one model"):
        replace(job, initial=start.select([0, 0]))
