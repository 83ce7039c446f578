"""Rules that see a whole lot before they weigh it, that react between epochs, and lots that are cut by label."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from defenses.architectures import Architecture
from defenses.defense import Defense, Sampler
from defenses.engine.training import Job, train
from defenses.gradients import ClippedGaussian, LotRule, Measures, ReviewedRule
from defenses.randomness import Noise
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots, by_label
from defenses.schemes.none import NoDefense
from defenses.updates import Tensors

rng = np.random.default_rng(3)
RECORDS = Records(
    rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 3, 60), 3, Table((), "y", ()), name="three kinds"
)
RECIPE = Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=Lots(30, 10, 4), learning_rate=0.5)
SEEN: list[tuple[int, Tensor, Tensor]] = []


@dataclass(frozen=True)
class ToTheMedian(ClippedGaussian):
    """Clips every lot at the median norm of that lot."""

    def initial(self) -> Tensors:
        return {"threshold": torch.tensor(0.0)}

    def prepare_step(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors, noise: Noise) -> Tensors:
        SEEN.append((int(mask.sum()), norms[mask], y[mask]))
        return {"threshold": norms[mask].median() if mask.any() else state["threshold"]}

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        weights = (state["threshold"] / norms.clamp(min=1e-9)).clamp(max=1.0)
        return weights * mask[:, None], ((weights < 1) & mask[:, None]).to(norms.dtype)

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        clipped.append(float(statistic_sums[0]))
        return sums, state


clipped: list[float] = []


@dataclass(frozen=True)
class Ruled(NoDefense):
    """A scheme of one rule."""

    rule: ClippedGaussian = field(default_factory=lambda: ToTheMedian(1.0, 0.0))
    drawn: Sampler = Sampler.POISSON

    name = "ruled"

    @property
    def sampler(self) -> Sampler:  # type: ignore[override]
        return self.drawn

    def gradient(self, lots: Lots) -> ClippedGaussian:
        return self.rule


def trained(defense: Defense, *, share: float = 1.0, models: int = 2, epochs: int = 4) -> object:
    recipe = Recipe(architecture=RECIPE.architecture, lots=Lots(30, 10, epochs), learning_rate=RECIPE.learning_rate)
    included = np.ones((models, 60), dtype=bool)
    return train(Job(recipe, defense, RECORDS), included, range(models), device="cpu")


def test_a_lot_rule_sees_all_of_a_lot_though_it_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ToTheMedian(1.0, 0.0), LotRule)
    assert not isinstance(ClippedGaussian(1.0, 0.0), LotRule)
    for bytes_at_once in (2**25, 4096):  # the second forces micro-batches of a few records
        SEEN.clear()
        clipped.clear()
        monkeypatch.setattr("defenses.engine.model_stack.LARGEST_BYTES", {"cpu": bytes_at_once, "cuda": 0})
        monkeypatch.setattr("defenses.engine.model_stack.TOTAL_BYTES", {"cpu": bytes_at_once, "cuda": 0})
        trained(Ruled())
        sizes = [size for size, _, _ in SEEN]
        assert len(sizes) == 2 * 4 * 3
        assert max(sizes) > 10
        for size, count in zip(sizes, clipped, strict=True):
            assert count == size // 2  # exactly those above the (lower) median were clipped


def test_lots_by_label_hold_one_label_and_lose_nobody() -> None:
    SEEN.clear()
    trained(Ruled(drawn=Sampler.POISSON_BY_LABEL), models=1)
    assert len(SEEN) == 4 * 3 * 3
    for position, (_, _, labels) in enumerate(SEEN):
        assert (labels == position % 3).all()
    lots = [np.array([1, 4, 5]), np.array([], dtype=np.int64)]
    cut = by_label(lots, [np.array([2, 0, 2]), np.array([], dtype=np.int64)], 3)
    assert [part.tolist() for part in cut] == [[4], [], [1, 5], [], [], []]


@dataclass(frozen=True)
class Stopping(ClippedGaussian):
    """Counts epochs and how many records are right, and stops after two."""

    def initial(self) -> Tensors:
        return {"epochs": torch.tensor(0.0), "right": torch.tensor(0.0), "public": torch.tensor(0.0)}

    def review(self, state: Tensors, measures: Measures, noise: Noise) -> Tensors:
        assert measures.epoch == int(state["epochs"]) + 1
        return {
            "epochs": state["epochs"] + 1,
            "right": measures.right_on_members().float().sum(),
            "public": measures.right_on_public().float().sum(),
        }

    def done(self, state: Tensors) -> bool:
        return bool(state["epochs"] >= 2)


def test_a_reviewed_rule_sees_how_the_model_does_and_stops_it() -> None:
    assert isinstance(Stopping(1.0, 0.0), ReviewedRule)
    stopping = Ruled(rule=Stopping(1.0, 0.5))
    public = RECORDS.take(np.arange(20))
    included = np.random.default_rng(0).random((2, 60)) < 0.5
    found = {
        epochs: train(
            Job(Recipe(architecture=RECIPE.architecture, lots=Lots(30, 10, epochs)), stopping, RECORDS, public=public),
            included,
            [1, 2],
            device="cpu",
        )
        for epochs in (2, 6)
    }
    for name, value in found[2].parameters.items():
        assert torch.equal(value, found[6].parameters[name])  # six epochs stop where two end
    for k in range(2):
        state = found[6].traces[k].state
        right = found[6].logits(RECORDS.x)[k].argmax(1) == RECORDS.y
        assert (state["epochs"], state["right"], state["public"]) == (2, right[included[k]].sum(), right[:20].sum())


def test_one_model_stops_and_its_neighbour_goes_on() -> None:
    @dataclass(frozen=True)
    class FewRight(Stopping):
        def done(self, state: Tensors) -> bool:
            return bool(state["epochs"] > 0) and bool(state["right"] < 15)

    included = np.random.default_rng(0).random((3, 60)) < np.array([[0.3], [0.9], [0.9]])
    job = Job(RECIPE, Ruled(rule=FewRight(1.0, 0.5)), RECORDS)
    together = train(job, included, [1, 2, 3], device="cpu", width=3)
    alone = [train(job, included[k : k + 1], [1 + k], device="cpu") for k in range(3)]
    epochs = [trace.state["epochs"] for trace in together.traces]
    assert len(set(epochs)) > 1  # or the test shows nothing
    for k, one in enumerate(alone):
        assert one.traces[0].state["epochs"] == epochs[k]
        for name, value in one.parameters.items():
            torch.testing.assert_close(value[0], together.parameters[name][k], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 7])
def test_laplace_sums_have_the_law_of_sums_of_laplace_deviates(count: int) -> None:
    noise = Noise(5, "noise", 1, device=torch.device("cpu"))
    drawn = noise.laplace_sums({"a": torch.zeros(100, 200)}, count)["a"].flatten().numpy()
    by_hand = np.random.default_rng(0).laplace(size=(count, 20000)).sum(0)
    assert stats.ks_2samp(drawn, by_hand).pvalue > 0.01
    if count == 1:
        assert stats.kstest(noise.laplace({"a": torch.zeros(20000)})["a"].numpy(), "laplace").pvalue > 0.01


def test_laplace_noise_is_a_function_of_its_name_and_draws_afresh() -> None:
    like: Tensors = {"a": torch.zeros(4), "b": torch.zeros(2, 3, dtype=torch.float64)}

    def draws(*names: int) -> Sequence[Tensors]:
        noise = Noise(5, "noise", *names, device=torch.device("cpu"))
        return [noise.laplace(like), noise.laplace(like)]

    (first, second), (again, _), (other, _) = draws(1), draws(1), draws(2)
    for name in like:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].shape == like[name].shape
        assert first[name].dtype == like[name].dtype
    assert not Noise(5, device=torch.device("cpu")).laplace_sums(like, 0)["a"].any()
