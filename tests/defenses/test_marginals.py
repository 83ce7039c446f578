"""The scheme: encoded records to noisy tables, to synthetic rows, to a model; its price in both modes."""

import dataclasses
import itertools
import json
from typing import Any

import dp_accounting
import numpy as np
import pytest
from pydantic import TypeAdapter

from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.training import Job, train
from defenses.errors import TrainingError
from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.mechanisms.tables.margins import Ways
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import Column, Image, Records, Table
from defenses.sampling import Lots
from defenses.schemes.marginals import Marginals, released_tables
from defenses.updates import Adam

LOTS = Lots(300, 50, 1)
SCHEMA = Table(
    (
        Column("age", (), 17, 90, 0, 1),
        Column("work", ("private", "state", "?"), 0, 1, 1, 3),
        Column("gain", (), 0, 99_999, 4, 1),
        Column("same", (), 5, 5, 5, 1),
    ),
    "income",
    ("low", "high"),
)
AGES = tuple(float(edge) for edge in range(17, 92))


def pool(count: int = 300, *, public: bool = True, seed: int = 0) -> Records:
    """Return encoded rows whose label follows the work; the range of `same` is empty."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, 6), dtype=np.float32)
    x[:, 0] = (rng.integers(17, 91, count) - 17) / 73
    work = rng.integers(0, 3, count)
    x[np.arange(count), 1 + work] = 1
    x[:, 4] = rng.choice([0.0, 0.2, 1.0], count)
    y = np.where(rng.random(count) < 0.95, work == 1, work != 1).astype(np.int64)
    return Records(x, y, 2, dataclasses.replace(SCHEMA, public_domain=public))


def history(scheme: Marginals, records: Records) -> History:
    return History(LOTS, scheme.prepare(records, np.random.default_rng(0)).facts)


def epsilon(scheme: Marginals, records: Records | None = None, *, delta: float = 0.0) -> float:
    found = account_run(scheme, history(scheme, records or pool()), delta=delta)
    assert isinstance(found, Guarantee), found
    assert found.neighboring is scheme.neighboring
    return found.epsilon


@pytest.mark.parametrize("public_size", [True, False])
@pytest.mark.parametrize("ways", list(Ways))
def test_repaired_proves_the_budget_and_literal_its_multiple(public_size: bool, ways: Ways) -> None:
    k = {Ways.ONE: 5, Ways.TWO: 10, Ways.ONE_AND_TWO: 15, Ways.WITH_LABEL: 4}[ways]
    common: dict[str, Any] = {"epsilon": 0.5, "tables": ways, "public_size": public_size}
    repaired, literal = Marginals(**common), Marginals(**common, mode=Mode.LITERAL, rows=300)
    assert epsilon(repaired) == pytest.approx(0.5, rel=1e-5)
    assert epsilon(literal) == pytest.approx(0.5 * k * (2 if public_size else 1), rel=1e-5)
    stated = literal.claimed(history(literal, pool()))
    assert (stated.epsilon, stated.neighboring, stated.delta) == (0.5, Neighboring.ADD_REMOVE, 0.0)
    stated = repaired.claimed(history(repaired, pool()))
    assert (stated.epsilon, stated.neighboring) == (0.5, repaired.neighboring)


def test_at_a_delta_many_tables_compose_for_less_than_their_sum() -> None:
    scheme = Marginals(epsilon=1.0, mode=Mode.LITERAL, tables=Ways.ONE_AND_TWO)
    assert epsilon(scheme) == pytest.approx(30)
    assert 0 < epsilon(scheme, delta=1e-5) < 30


def test_what_gives_the_number_of_records_away_is_unaccounted() -> None:
    scheme = Marginals(epsilon=1.0, mode=Mode.LITERAL, public_size=False)
    for found in (scheme.event(history(scheme, pool())), scheme.event(History(LOTS))):
        assert isinstance(found, Unaccounted)
        assert "as many rows come out as went in" in found.reason


@pytest.mark.parametrize("mode", Mode)
def test_a_domain_that_was_read_from_the_records_is_unaccounted(mode: Mode) -> None:
    scheme = Marginals(epsilon=1.0, mode=mode)
    found = account_run(scheme, history(scheme, pool(public=False)), delta=0.0)
    assert isinstance(found, Unaccounted)
    assert "read from the records" in found.reason


def test_a_plan_is_priced_before_it_runs_where_it_can_be() -> None:
    tables = (("age",), ("work", "income"), ("gain",), ("same",))
    for scheme, expected in (
        (Marginals(epsilon=0.5), 0.5),
        (Marginals(epsilon=0.5, mode=Mode.LITERAL, tables=tables), 4.0),
        (Marginals(epsilon=0.5, mode=Mode.LITERAL, tables=tables, public_size=False, rows=9), 2.0),
    ):
        found = account_run(scheme, History(LOTS), delta=0.0)
        assert isinstance(found, Guarantee)
        assert found.epsilon == pytest.approx(expected)
        assert epsilon(scheme) == pytest.approx(expected, rel=1e-5)  # and the run costs what the plan said
    unknown = Marginals(epsilon=0.5, mode=Mode.LITERAL).event(History(LOTS))
    assert isinstance(unknown, Unaccounted)


def test_encoded_numbers_fall_in_the_bins_they_came_from() -> None:
    ages = np.arange(17, 91)
    x = np.zeros((74, 6), dtype=np.float32)
    x[:, 0], x[:, 1] = (ages - 17) / 73, 1
    records = Records(x, np.zeros(74, np.int64), 2, SCHEMA)
    layout = Marginals(epsilon=1.0, edges=(("age", AGES),)).layout(records)
    np.testing.assert_array_equal(layout.codes(records)["age"], ages - 17)  # float32 rounds 38 to 37.999998


def test_codes_survive_a_round_through_records() -> None:
    scheme = Marginals(epsilon=1.0, edges=(("age", AGES), ("gain", (0.0, 1.0, 50_000.0, 200_000.0))))
    rng = np.random.default_rng(0)
    layout = scheme.layout(pool())
    codes = {name: rng.integers(0, domain.size, 4000) for name, domain in layout.domains.items()}
    made = layout.records(codes, pool(), rng)
    again = layout.codes(made)
    for name in ("age", "work", "same", "income"):
        np.testing.assert_array_equal(again[name], codes[name])
    assert (again["gain"] == codes["gain"]).mean() > 0.99  # between 0.99 and 1 of 99,999, float32 cannot tell
    np.testing.assert_array_equal(made.x[:, 1:4].sum(axis=1), 1)
    assert made.x.min() >= 0
    assert made.x.max() <= 1


def test_with_budget_to_spare_the_tables_are_the_records_own() -> None:
    records = pool()
    scheme = Marginals(epsilon=1e5, tables=Ways.ONE, edges=(("age", AGES),))
    released = released_tables(scheme.prepare(records, np.random.default_rng(0)).facts)
    tables = {margin[0]: counts for margin, counts in zip(released.margins, released.counts, strict=True)}
    np.testing.assert_array_equal(tables["work"], records.x[:, 1:4].sum(axis=0))
    np.testing.assert_array_equal(tables["income"], np.bincount(records.y))
    np.testing.assert_array_equal(tables["age"], np.bincount(np.rint(records.x[:, 0] * 73).astype(int), minlength=74))
    assert tables["gain"][0] == (records.x[:, 4] == 0).sum()
    assert tables["gain"][-1] == (records.x[:, 4] == 1).sum()
    assert tables["same"].tolist() == [300]


def test_features_that_no_column_declares_have_a_public_range() -> None:
    rng = np.random.default_rng(0)
    records = Records(rng.normal(size=(500, 2)).astype(np.float32) * 9, np.zeros(500, np.int64), 2, Table((), "y", ()))
    scheme = Marginals(epsilon=1e5, tables=Ways.ONE, bins=4, feature_range=(-2.0, 2.0))
    prepared = scheme.prepare(records, rng)
    counts = released_tables(prepared.facts).counts[0]
    edges = [-np.inf, -1, 0, 1, np.inf]  # what lies outside counts at its end
    np.testing.assert_array_equal(counts, np.histogram(records.x[:, 0], edges)[0])
    assert np.abs(prepared.records.x).max() <= 2


def test_rows_are_a_function_of_the_stream_and_hold_the_public_facts() -> None:
    scheme, records = Marginals(epsilon=1.0, public_size=False), pool()
    one, same, other = (scheme.prepare(records, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.records.x, same.records.x)
    assert json.dumps(one.facts) == json.dumps(same.facts)
    assert json.dumps(one.facts, allow_nan=False) != json.dumps(other.facts, allow_nan=False)
    assert len({len(each.records) for each in (one, other)} - {300}) >= 1  # their number is noisy too
    assert one.records.owner is None


def test_more_rows_are_drawn_from_what_was_released_and_cost_nothing() -> None:
    scheme, records = Marginals(epsilon=1.0), pool()
    run = history(scheme, records)
    before = json.dumps(run.facts), account_run(scheme, run, delta=0.0)
    rng = np.random.default_rng(0)
    more = [scheme.more_rows(run.facts, records.take(np.arange(1)), rng, rows=rows) for rows in (1, 50, 2000)]
    assert [len(each) for each in more] == [1, 50, 2000]
    assert len(scheme.more_rows(run.facts, records, rng)) == 300
    assert (json.dumps(run.facts), account_run(scheme, run, delta=0.0)) == before
    frame = released_tables(run.facts).sample(20, seed=1)
    assert list(frame) == ["age", "work", "gain", "same", "income"]
    assert set(frame["income"]) <= {"low", "high"}
    with pytest.raises(ValueError, match="no released tables"):
        released_tables({})


def test_a_model_learns_from_pairs_what_single_columns_lose() -> None:
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [8]}),
        lots=Lots(2000, 50, 5),
        learning_rate=0.02,
        optimizer=Adam(),
    )
    members, fresh = pool(2000), pool(1000, seed=9)
    right = {}
    for tables in (Ways.WITH_LABEL, Ways.ONE):
        job = Job(recipe, Marginals(epsilon=2.0, tables=tables, public_size=False), members)
        ensemble = train(job, np.ones((1, 2000), bool), [1], device="cpu")
        right[tables] = float((ensemble.logits(fresh.x).argmax(axis=2) == fresh.y).mean())
        assert ensemble.traces[0].facts["released"]["size"] is None
    assert right[Ways.WITH_LABEL] > 0.9
    assert right[Ways.ONE] < 0.75


def test_the_accountant_sees_one_pure_mechanism_for_each_table() -> None:
    scheme = Marginals(epsilon=1.0, tables=Ways.TWO)
    event = scheme.event(history(scheme, pool()))
    assert isinstance(event, dp_accounting.SelfComposedDpEvent)
    assert event.count == 10
    assert event.event.epsilon == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": float("inf")}, "epsilon is inf"),
        ({"epsilon": 1.0, "bins": 0}, "bins is 0"),
        ({"epsilon": 1.0, "rows": 0}, "rows is 0"),
        ({"epsilon": 1.0, "feature_range": (1.0, 1.0)}, "feature_range is"),
        ({"epsilon": 1.0, "tables": ()}, "tables is an empty list"),
        ({"epsilon": 1.0, "edges": (("age", (3.0, 2.0)),)}, "bin edges are"),
        ({"epsilon": 1.0, "edges": (("age", AGES), ("age", AGES))}, "a column twice"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Marginals(**wrong)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"edges": (("height", (0.0, 1.0)),)}, "'height', which is no numeric column"),
        ({"edges": (("work", (0.0, 1.0)),)}, "'work', which is no numeric column"),
        ({"tables": (("age", "height"),)}, "'height', which is not there"),
        ({"tables": (("age", "income"),)}, "'work' is in no table"),
        ({"epsilon": 1e-12}, "epsilon is"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(parameters: dict[str, Any], said: str) -> None:
    scheme = Marginals(**{"epsilon": 1.0} | parameters)
    with pytest.raises(TrainingError, match=said):
        scheme.prepare(pool(), np.random.default_rng(0))


def test_images_are_refused() -> None:
    images = Records(np.zeros((4, 1, 2, 2), np.float32), np.zeros(4, np.int64), 2, Image())
    with pytest.raises(TrainingError, match="holds images"):
        Marginals(epsilon=1.0).prepare(images, np.random.default_rng(0))
    doubled = dataclasses.replace(SCHEMA, label="age")
    with pytest.raises(TrainingError, match="two columns are called 'age'"):
        Marginals(epsilon=1.0).prepare(dataclasses.replace(pool(), kind=doubled), np.random.default_rng(0))


def test_a_plan_can_name_every_parameter() -> None:
    hints = {field.name: field.type for field in dataclasses.fields(Marginals)}
    for name, written, meant in (
        ("mode", "literal", Mode.LITERAL),
        ("tables", "two_way", Ways.TWO),
        ("tables", [["age", "work"], ["gain"]], (("age", "work"), ("gain",))),
        ("edges", [["age", [17, 40, 91]]], (("age", (17.0, 40.0, 91.0)),)),
    ):
        assert TypeAdapter(hints[name]).validate_python(written) == meant
    json.dumps(dataclasses.asdict(Marginals(epsilon=1.0, edges=(("age", AGES),))))


def test_literal_and_repaired_differ_in_noise_alone_where_there_is_one_table() -> None:
    records = pool().take(np.arange(50))
    for mode, public_size in itertools.product(Mode, (True, False)):
        scheme = Marginals(epsilon=0.25, mode=mode, tables=Ways.ONE, public_size=public_size, rows=50)
        released = released_tables(scheme.prepare(records, np.random.default_rng(0)).facts)
        expected = 4.0 if mode is Mode.LITERAL else 4.0 * 5 * (2 if public_size else 1)
        assert float(released.scale) == pytest.approx(expected)
