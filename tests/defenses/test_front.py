"""Preprocessing that a released model carries: it trains on what has gone through, and is asked about what has not."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from defenses.architectures import Architecture, untrained
from defenses.defense import Defense, Prepared
from defenses.engine.training import Job, train
from defenses.input_transform import InputTransform, make_input_transform
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense

rng = np.random.default_rng(3)
X = rng.normal(2.0, 3.0, size=(50, 6)).astype(np.float32)
Y = rng.integers(0, 2, 50)
RECORDS = Records(X, Y, 2, Table((), "y", ()))
BASIS = rng.normal(size=(3, 6))
RECIPE = Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=Lots(25, 5, 2))


@dataclass(frozen=True)
class Projected(NoDefense):
    """Standardises by its own mean, which differs from model to model, and projects."""

    name = "projected"

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        front = make_input_transform(records.x.mean(0), 2.0, shape=(6,), basis=BASIS, bound=1.5)
        own = Records(front.apply_to(records.x), records.y, records.classes, records.kind)
        return Prepared(own, {"mean": records.x.mean(0).tolist()}, front)


def test_it_standardises_clips_and_projects() -> None:
    front = make_input_transform(np.full(6, 2.0), np.full(6, 3.0), shape=(6,), basis=BASIS, bound=0.5)
    expected = np.clip((X - 2) / 3, -0.5, 0.5) @ BASIS.T
    np.testing.assert_allclose(front.apply_to(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "bound", "message"),
    [(0.0, None, "scale"), (np.nan, None, "scale"), (1.0, 0.0, "bound"), (1.0, -1.0, "bound")],
)
def test_what_has_no_inverse_is_refused(scale: float, bound: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_input_transform(0.0, scale, shape=(6,), bound=bound)


def test_a_model_with_a_front_is_that_of_records_that_went_through_it_before() -> None:
    """Each model of a stack has its own mean; by hand, the same network on the same prepared rows."""
    included = rng.random((2, 50)) < 0.5
    found = train(Job(RECIPE, Projected(), RECORDS), included, [1, 2], device="cpu")
    assert found.shape == (6,)
    for k in range(2):
        own = Projected().prepare(RECORDS.take(included[k]), rng)
        assert own.front is not None
        rows = Records(own.front.apply_to(X), Y, 2, Table((), "y", ()))
        by_hand = train(Job(RECIPE, NoDefense(), rows), included[k : k + 1], [1 + k], device="cpu")
        np.testing.assert_allclose(found.logits(X)[k], by_hand.logits(rows.x)[0], rtol=1e-4, atol=1e-5)
        assert found.traces[k].facts["mean"] == pytest.approx(X[included[k]].mean(0).tolist())


def test_gradients_go_through_it_to_the_record_that_was_asked() -> None:
    model = train(Job(RECIPE, Projected(), RECORDS), np.ones((1, 50), bool), [1], device="cpu").one(0)
    x = torch.from_numpy(X[:1]).requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (1, 6)
    assert [name for name, _ in model.named_parameters()] == [
        f"1.{name}" for name in ("1.weight", "1.bias", "3.weight", "3.bias")
    ]


def test_where_training_started_has_the_front_of_where_it_ended() -> None:
    behind = train(Job(RECIPE, Projected(), RECORDS), np.ones((1, 50), bool), [1], device="cpu").one(0)
    start = untrained(behind, RECIPE.architecture, (6,), 2, seed=4)
    assert start[0] is behind[0]  # type: ignore[index]
    again = untrained(behind, RECIPE.architecture, (6,), 2, seed=4)
    other = untrained(behind, RECIPE.architecture, (6,), 2, seed=5)
    x = torch.from_numpy(X)
    assert torch.equal(start(x), again(x))
    assert not torch.equal(start(x), other(x))
    plain = train(Job(RECIPE, NoDefense(), RECORDS), np.ones((1, 50), bool), [1], device="cpu").one(0)
    assert not isinstance(untrained(plain, RECIPE.architecture, (6,), 2, seed=4)[0], InputTransform)  # type: ignore[index]


@dataclass(frozen=True)
class Fewer(NoDefense):
    """Trains on ten rows of its own making, whatever the number of its records."""

    name = "fewer"

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        return Prepared(records.take(rng.choice(len(records), 10)))


def test_a_scheme_may_train_on_another_number_of_rows() -> None:
    found = train(Job(RECIPE, Fewer(), RECORDS), np.ones((2, 50), bool), [1, 2], device="cpu")
    assert np.isfinite(found.logits(X)).all()


@dataclass(frozen=True)
class Needy(NoDefense):
    """Wants public records."""

    name = "needy"
    uses_public = True

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        assert public is not None
        return Prepared(records, {"public": len(public)})


def test_public_records_reach_the_scheme_that_wants_them_or_are_asked_for() -> None:
    needy: Defense = Needy()
    with pytest.raises(ValueError, match=r"'needy' needs public records.*population = N"):
        Job(RECIPE, needy, RECORDS)
    with pytest.raises(ValueError, match=r"public records have shape \(2,\)"):
        Job(RECIPE, needy, RECORDS, public=Records(X[:, :2], Y, 2, Table((), "y", ())))
    found = train(Job(RECIPE, needy, RECORDS, public=RECORDS.take(np.arange(7))), np.ones((1, 50), bool), [1])
    assert found.traces[0].facts == {"public": 7}
