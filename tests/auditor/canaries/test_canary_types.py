"""Every kind of canary keeps to what records can be, and is what its name says."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from auditor.canaries.canary_type import Drawn, canary_types
from auditor.datasets import decode, encode, load
from auditor.datasets.schema import MISSING, categorical, numeric, table
from defenses.errors import DataError
from defenses.records import Records, Table

SCHEMA = table(
    numeric("age", 18, 90),
    categorical("ward", "north", "south", MISSING),
    categorical("smokes", "no", "yes"),
    label="sick",
    classes=("no", "yes", "unclear"),
)


def patients(count: int = 300) -> Records:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 91, count),
            "ward": rng.choice(["north", "south"], count),
            "smokes": rng.choice(["no", "yes"], count),
            "sick": rng.choice(["no", "yes", "unclear"], count),
        }
    )
    return encode(frame, SCHEMA, name="patients")


@pytest.fixture(scope="module", params=["digits", "patients"])
def records(request: pytest.FixtureRequest) -> Records:
    return load("digits").take(np.arange(600)) if request.param == "digits" else patients()


def drawn(kind: str, records: Records, count: int = 100) -> Drawn:
    return canary_types()[kind]().draw(records, count, rng=np.random.default_rng(5))


def test_the_folder_is_the_list() -> None:
    assert set(canary_types()) == {"blank", "mislabelled", "nearest_to_boundary", "random_noise"}


@pytest.mark.parametrize("kind", sorted(canary_types()))
def test_canaries_are_records_of_the_same_schema(kind: str, records: Records) -> None:
    found = drawn(kind, records, 12 if records.name == "patients" else 100)
    made = Records(found.x, found.y, records.classes, records.kind)  # checks labels and finite features
    assert made.shape == records.shape
    assert 12 <= len(made) <= 100
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    if isinstance(records.kind, Table):
        for column in records.kind.columns:
            if column.categories:
                block = found.x[:, column.start : column.start + column.width]
                assert set(np.unique(block)) <= {0.0, 1.0}
                assert (block.sum(axis=1) == 1).all()


def test_a_mislabelled_record_has_every_label_but_its_own(records: Records) -> None:
    found = drawn("mislabelled", records, len(records))
    assert found.base is not None
    assert np.array_equal(found.x, records.x[found.base])
    assert sorted(found.base) == list(range(len(records)))
    moved = (found.y - records.y[found.base]) % records.classes
    assert set(moved) == set(range(1, records.classes))


def test_noise_fills_ranges_categories_and_labels(records: Records) -> None:
    found = drawn("random_noise", records, 2000)
    assert found.base is None
    assert set(found.y) == set(range(records.classes))
    if isinstance(records.kind, Table):
        rows = decode(found.x, records.kind)
        assert set(rows["ward"]) == {"north", "south", MISSING}
        assert abs(rows["age"].mean() - 54) < 2
        assert rows["age"].min() < 20
        assert rows["age"].max() > 88
    else:
        assert np.allclose(found.x.mean(axis=0), 0.5, atol=0.05)  # every pixel by itself


def test_noise_of_standardised_columns_stays_where_the_data_is() -> None:
    x = np.random.default_rng(1).normal([0, 100], [1, 5], size=(200, 2)).astype(np.float32)
    columns = table(numeric("x0", 0, 1), numeric("x1", 0, 1), label="y", classes=("0", "1"))
    found = drawn("random_noise", Records(x, np.arange(200) % 2, 2, columns))
    assert (found.x >= x.min(axis=0)).all()
    assert (found.x <= x.max(axis=0)).all()
    assert found.x[:, 1].min() > 50


def test_blank_canaries_differ_by_one_mark(records: Records) -> None:
    found = drawn("blank", records, 60)
    if isinstance(records.kind, Table):
        rows = decode(found.x, records.kind)
        at_rest = (rows["age"] == 18).astype(int) + (rows["ward"] == MISSING) + (rows["smokes"] == "no")
        assert (at_rest == 2).all()
        assert len(found) == 33  # (8 levels of age, 2 other wards, 1 other answer) under 3 labels: all there are
    else:
        assert ((found.x != 0).reshape(len(found), -1).sum(axis=1) == 1).all()
        assert len(found) == 60
    pairs = {(row.tobytes(), int(label)) for row, label in zip(found.x, found.y, strict=True)}
    assert len(pairs) == len(found)


def test_records_nearest_to_the_boundary_are_those_that_another_model_is_unsure_of() -> None:
    digits = load("digits")
    found = drawn("nearest_to_boundary", digits, 100)
    assert found.base is not None
    assert np.array_equal(found.y, digits.y[found.base])
    flat = digits.x.reshape(len(digits), -1)
    rest = np.setdiff1d(np.arange(len(digits)), found.base)
    # An independent judge that has seen none of them.
    judge = LogisticRegression(max_iter=2000).fit(flat[rest], digits.y[rest])
    margin = np.sort(judge.decision_function(flat), axis=1)
    gap = margin[:, -1] - margin[:, -2]
    assert np.median(gap[found.base]) < 0.5 * np.median(gap[rest])
    again = drawn("nearest_to_boundary", digits, 100)
    assert np.array_equal(again.base if again.base is not None else [], found.base)


@pytest.mark.parametrize("kind", ["mislabelled", "nearest_to_boundary"])
def test_one_class_has_no_wrong_label_and_no_boundary(kind: str) -> None:
    one = Records(load("digits").x[:60], np.zeros(60, np.int64), 1, load("digits").kind)
    with pytest.raises(DataError, match="random_noise"):
        drawn(kind, one)
