"""Released copies: what was released is handed on as it is, and copies among it are found."""

import numpy as np
import pytest
from torch import nn

from attacks.similarity import similarities
from attacks.synthetic_data.released_copies import ReleasedCopies
from attacks.target import Target
from attacks.view import View, expose
from auditor.evidence.record_leakage import record_leakage
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.records import FloatArray, Image, Records, Table

KIND = Table((), "y", ())


def view_of(x: FloatArray | None, *, kind: Image | Table = KIND) -> View:
    shape = (6,) if x is None else x.shape[1:]
    candidates = Records(np.zeros((2, *shape), np.float32), np.zeros(2, np.int64), 2, kind)
    released = None if x is None else Records(x, np.zeros(len(x), np.int64), 2, kind)
    return expose(Target(nn.Linear(6, 2), candidates, "d", synthetic=released), ReleasedCopies().requires)


def rows(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).random((count, 6), dtype=np.float32)


@pytest.mark.parametrize("most", [7, 8])
def test_what_was_released_is_handed_on(most: int) -> None:
    x = rows(7, 0)
    claim = ReleasedCopies(most=most).run(view_of(x), rng=np.random.default_rng(0))
    assert np.array_equal(claim.x, x)
    assert claim.notes == ()


def test_of_many_a_few_are_drawn_each_once_and_all_with_equal_chance() -> None:
    x = np.arange(600, dtype=np.float32).reshape(100, 6)
    drawn = [ReleasedCopies(most=20).run(view_of(x), rng=np.random.default_rng(seed)) for seed in range(200)]
    assert drawn[0].notes == ("20 of 100 released records were drawn and compared.",)
    places = np.stack([claim.x[:, 0] / 6 for claim in drawn]).astype(int)
    assert all(len(set(row)) == 20 for row in places.tolist())
    counts = np.bincount(places.ravel(), minlength=100)
    assert 15 < counts.min() <= counts.max() < 70  # 40 expected
    again = ReleasedCopies(most=20).run(view_of(x), rng=np.random.default_rng(0))
    assert np.array_equal(again.x, drawn[0].x)


def test_images_are_handed_on_too() -> None:
    x = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)
    claim = ReleasedCopies().run(view_of(x, kind=Image()), rng=np.random.default_rng(0))
    assert np.array_equal(claim.x, x)


def test_copies_are_found_and_fresh_records_are_not() -> None:
    train, holdout, fresh = rows(100, 0), rows(100, 1), rows(300, 2)
    few = fresh.copy()
    few[:10] = train[:10] + np.float32(1e-3)
    measure = similarities(KIND)["mse"]
    found = {}
    for name, released in (("all", train), ("few", few), ("none", fresh)):
        x = ReleasedCopies().run(view_of(released), rng=np.random.default_rng(0)).x
        found[name] = record_leakage(measure(x, train), measure(x, holdout), rng=np.random.default_rng(0))
    assert found["all"].auc.value == 1.0
    assert found["few"].tpr_p_value < 0.01
    assert min(found["none"].p_value, found["none"].tpr_p_value, found["none"].copy_p_value) > 0.05


def test_without_released_records_there_is_nothing_to_do() -> None:
    with pytest.raises(NotApplicableError, match="synthetic"):
        view_of(None)


def test_nothing_else_is_seen() -> None:
    view = view_of(rows(3, 0))
    with pytest.raises(NotDisclosedError, match="records in question"):
        _ = view.candidates
    with pytest.raises(NotDisclosedError, match="labels"):
        view.labels(np.zeros((1, 6), np.float32))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="most"):
        ReleasedCopies(most=0)
