"""Data frames in and out: columns and types, missing cells, and what is refused before anything is released."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from defenses.guarantee import Neighboring
from defenses.mechanisms.tables import (
    Bins,
    Categories,
    Ways,
    equal_bins,
    release_tables,
    total_variations,
    whole_numbers,
)
from defenses.mechanisms.tables import released as module
from defenses.mechanisms.tables.domains import Domain, domain_from_json, domain_to_json
from defenses.mechanisms.tables.frames import codes_of

DOMAINS: dict[str, Domain] = {
    "age": whole_numbers(17, 90),
    "weight": equal_bins(30, 110, 16),
    "grade": Categories("a", "b", "c"),
    "word": Categories("x", "y"),
    "flag": Categories(False, True),
    "level": Categories(0, 1, 2),
    "dose": Bins((0, 0.5, 2)),
    "answer": Categories(True, False),
    "old": Categories("u", "v"),
    "text": Categories("p", "q"),
}


def people(count: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "age": rng.integers(17, 91, count).astype("int16"),
        "weight": rng.normal(70, 10, count).astype("float32"),
        "grade": pd.Categorical(rng.choice(list("abc"), count), categories=list("cbad"), ordered=True),
        "word": rng.choice(np.array(["x", "y", None], dtype=object), count),
        "flag": rng.random(count) < 0.3,
        "level": pd.array(rng.integers(0, 3, count), dtype="Int64"),
        "dose": rng.choice([0.0, 1.0, np.nan], count),
        "answer": pd.array(rng.random(count) < 0.5, dtype="boolean"),
        "old": pd.Series(rng.choice(["u", "v"], count), dtype=object),
        "text": pd.array(rng.choice(["p", "q"], count), dtype="string[python]"),
    })  # fmt: skip
    frame.loc[3, "level"] = pd.NA
    return frame


@pytest.mark.parametrize("ways", [Ways.ONE, Ways.WITH_LABEL, Ways.TWO])
@pytest.mark.parametrize("neighboring", Neighboring)
def test_columns_and_types_are_the_inputs(ways: Ways, neighboring: Neighboring) -> None:
    frame = people()
    released = release_tables(frame, columns=DOMAINS, epsilon=20.0, tables=ways, neighboring=neighboring, label="old")
    found = released.sample()
    pd.testing.assert_series_equal(found.dtypes, frame.dtypes)
    if neighboring is Neighboring.REPLACE_ONE:
        assert len(found) == len(frame)
    codes_of(found, DOMAINS)  # and every value is in its domain
    assert found["age"].between(17, 90).all()


def test_a_missing_cell_is_a_category() -> None:
    frame = people()
    found = release_tables(frame, columns=DOMAINS, epsilon=1e4, tables=Ways.ONE, seed=1).sample(20_000, seed=1)
    for name in ("word", "dose", "level"):
        assert found[name].isna().mean() == pytest.approx(frame[name].isna().mean(), abs=0.02)
    assert not found[["age", "flag"]].isna().any(axis=None)


def test_synthetic_rows_come_nearer_with_the_budget_and_pairs_with_two_way_tables() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 5, 4000)
    frame = pd.DataFrame({"left": left, "right": np.where(rng.random(4000) < 0.9, left, rng.integers(0, 5, 4000))})
    columns = {"left": Categories(*range(5)), "right": Categories(*range(5))}

    def distance(tables: Ways, epsilon: float) -> float:
        drawn = release_tables(frame, columns=columns, epsilon=epsilon, tables=tables, seed=1).sample(seed=1)
        return total_variations(frame, drawn, columns=columns)["left", "right"]

    assert distance(Ways.TWO, 5.0) < 0.05 < 0.5 < distance(Ways.ONE, 5.0)
    assert distance(Ways.TWO, 5.0) < distance(Ways.TWO, 0.02)


def test_the_distance_is_half_the_difference_of_shares() -> None:
    one = pd.DataFrame({"a": [0, 0, 1, 2], "b": ["x", "y", "x", "x"]})
    other = pd.DataFrame({"a": [0, 1, 1, 1], "b": ["x", "x", "x", "y"]})
    columns = {"a": whole_numbers(0, 2), "b": Categories("x", "y")}
    found = total_variations(one, other, columns=columns, tables=Ways.ONE_AND_TWO)
    assert found == {("a",): 0.5, ("b",): 0.0, ("a", "b"): 0.5}
    assert total_variations(one, one, columns=columns) == {("a", "b"): 0.0}


def test_a_seed_repeats_the_noise_and_none_does_not() -> None:
    frame = people(50)
    seeded = [release_tables(frame, columns=DOMAINS, epsilon=1.0, tables=Ways.ONE, seed=seed) for seed in (1, 1, 2)]
    assert seeded[0].to_json() == seeded[1].to_json()
    assert seeded[0].to_json() != seeded[2].to_json()
    free = [release_tables(frame, columns=DOMAINS, epsilon=1.0, tables=Ways.ONE) for _ in range(2)]
    assert free[0].to_json() != free[1].to_json()


BAD = [
    ({"epsilon": -1.0}, "epsilon is -1.0"),
    ({"epsilon": float("inf")}, "epsilon is"),
    (
        {"columns": DOMAINS | {"agee": whole_numbers(0, 9)}},
        r"'agee', which the table does not have \(did you mean 'age'",
    ),
    ({"columns": {name: domain for name, domain in DOMAINS.items() if name != "age"}}, "'age' has no public domain"),
    ({"columns": DOMAINS | {"age": None}}, "give its bin edges"),
    ({"columns": DOMAINS | {"age": [17, 40, 90]}}, "give its bin edges"),
    ({"columns": DOMAINS | {"grade": None}}, "give its categories"),
    ({"columns": DOMAINS | {"word": Categories("x")}}, "'word' holds 'y' in row"),
    ({"columns": DOMAINS | {"word": Categories("x", "y", missing=False)}}, "declare missing=True"),
    ({"columns": DOMAINS | {"age": whole_numbers(17, 90, missing=True)}}, "cannot hold an empty cell"),
    ({"columns": DOMAINS | {"old": Bins((0, 1))}}, "holds no numbers"),
    ({"columns": DOMAINS | {"flag": Bins((0, 1))}}, "holds no numbers"),
    ({"columns": DOMAINS | {"age": Bins((17, 1e6))}}, "cannot hold its edges"),
    ({"columns": DOMAINS | {"grade": Categories("a", "b", "c", "z")}}, "no category 'z' in its type"),
    ({"tables": [("age", "hight")]}, "'hight', which is not there"),
    ({"tables": [("age", "word")]}, "is in no table"),
    ({"tables": Ways.WITH_LABEL}, "no column is named as the label"),
    ({"rows": 0}, "rows is 0"),
    ({"seed": -1}, "seed is -1"),
]


@pytest.mark.parametrize(("wrong", "said"), BAD, ids=[said[:30] for _, said in BAD])
def test_bad_input_is_refused_before_anything_is_released(
    wrong: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "add_by_opendp", lambda *_, **__: pytest.fail("something was released"))
    monkeypatch.setattr(module.KeyStream, "laplace", lambda *_: pytest.fail("something was released"))
    arguments = {"columns": DOMAINS, "epsilon": 1.0, "tables": Ways.ONE} | wrong
    with pytest.raises(ValueError, match=said):
        release_tables(people(60), **arguments)


@pytest.mark.parametrize("name", ["word", "dose", "level"])
def test_a_column_that_holds_nothing_is_refused(name: str) -> None:
    frame = people(60)
    frame[name] = pd.Series([None] * 60, dtype=frame[name].dtype)
    with pytest.raises(ValueError, match=f"{name!r} holds nothing at all"):
        release_tables(frame, columns=DOMAINS, epsilon=1.0)


def test_a_table_without_rows_or_with_doubtful_columns_is_refused() -> None:
    for frame, said in (
        (people().iloc[:0], "0 rows"),
        (pd.DataFrame({1: [1]}), "must be text, each once"),
        (pd.DataFrame([[1, 2]], columns=["age", "age"]), "must be text, each once"),
    ):
        with pytest.raises(ValueError, match=said):
            release_tables(frame, columns={"age": whole_numbers(0, 9)}, epsilon=1.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Categories(), "no category"),
        (lambda: Categories("a", "a"), "listed twice"),
        (lambda: Categories(1, True), "listed twice"),
        (lambda: Categories("a", None), "missing=True"),
        (lambda: Categories(float("nan")), "missing=True"),
        (lambda: Bins((1,)), "at least two"),
        (lambda: Bins((1, 1)), "each above the last"),
        (lambda: Bins((3, 2)), "each above the last"),
        (lambda: Bins((0, float("inf"))), "finite"),
        (lambda: Bins((0.2, 0.8, 3), whole=True), "holds no whole number"),
        (lambda: whole_numbers(3, 2), "low <= high"),
        (lambda: equal_bins(0, 1, 0), "at least 1 bin"),
    ],
)
def test_a_domain_that_cannot_be_meant_is_refused(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=said):
        make()


def test_every_number_has_its_bin_and_comes_back_within_it() -> None:
    rng = np.random.default_rng(0)
    for bins in (Bins((0.0, 1.0, 5.5, 6.0)), whole_numbers(3, 9, step=2), Bins((-2, 3, 4), whole=True)):
        numbers = rng.uniform(-10, 20, 500)
        codes = bins.codes(numbers)
        edges = np.array(bins.edges)
        inside = (numbers >= edges[0]) & (numbers < edges[-1])
        np.testing.assert_array_equal(edges[codes[inside]] <= numbers[inside], True)
        np.testing.assert_array_equal(numbers[inside] < edges[codes[inside] + 1], True)
        assert set(codes[numbers < edges[0]]) == {0}
        assert set(codes[numbers >= edges[-1]]) == {len(edges) - 2}
        drawn = bins.numbers(codes, rng)
        np.testing.assert_array_equal(bins.codes(drawn), codes)
        assert not bins.whole or (drawn % 1 == 0).all()
        assert domain_from_json(domain_to_json(bins)) == bins
    missing = Bins((0, 1, 2), missing=True)
    np.testing.assert_array_equal(missing.codes(np.array([0.5, np.nan, np.inf])), [0, 2, 1])
    assert np.isnan(missing.numbers(np.array([2, 0]), rng)).tolist() == [True, False]


def test_numbers_of_a_bin_are_all_alike_likely() -> None:
    drawn = whole_numbers(0, 9, step=5).numbers(np.zeros(50_000, np.int64), np.random.default_rng(0))
    shares = np.bincount(drawn.astype(int)) / 50_000
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_the_library_needs_no_torch() -> None:
    code = "import defenses.mechanisms.tables, sys; assert not {'torch', 'dp_accounting', 'opendp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
