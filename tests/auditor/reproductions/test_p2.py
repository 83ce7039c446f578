"""P2's experiment at toy sizes: rows and charts by hand, snapshots against shorter runs, and the broken example."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from auditor.context import RunContext
from auditor.reproductions import experiments, p2, p2_models
from auditor.reproductions.p2_models import Bench, Snapshots, inferred_labels, scheme_of
from auditor.workspace import Workspace
from defenses.accounting import account
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.training import Job, train
from defenses.guarantee import Guarantee
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.layerwise_dp import LayerwiseDP, LayerwiseGaussian
from defenses.schemes.none import NoDefense
from reports.records.estimate import Estimate
from reports.records.reproduction import Outcome, Reproduction

EXAMPLE = Path(__file__).parents[3] / "examples" / "broken" / "layerwise_dp.py"


def digits(n: int, seed: int) -> Records:
    """Images of one bright block, whose place is the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, n)
    x = rng.uniform(0, 0.3, size=(n, 1, 28, 28))
    for row, label in zip(x, y, strict=True):
        row[0, 2 * label : 2 * label + 6, 5:20] += 0.7
    return Records(x.astype(np.float32), y, 10, Image(), name="blocks")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunContext:
    """Three epochs, two sizes and fifteen victims on images that anybody can tell apart."""
    monkeypatch.setattr(p2_models, "load", lambda name, split="train", data_dir=None: digits(600, split == "test"))
    for name, value in (("PUBLIC", 100), ("MEMBERS", 200), ("HIDDEN", 8), ("COMPONENTS", 20)):
        monkeypatch.setattr(p2_models, name, value)
    monkeypatch.setattr(p2, "MEMBERS", 200)
    monkeypatch.setattr(p2, "CURVE_EPOCHS", (1, 3))
    monkeypatch.setattr(p2, "TABLE_RECORDS", (100, 200))
    monkeypatch.setattr(p2, "TABLE_EPOCHS", (1, 2))
    monkeypatch.setattr(p2, "VICTIMS", 15)
    return RunContext(workspace=Workspace(tmp_path / "work"), device="cpu")


def rows(found: Reproduction, what: str, *where: str) -> list[object]:
    return [row for row in found.rows if row.what == what and all(part in row.setting for part in where)]


@pytest.mark.slow
def test_it_is_found_and_prints_every_figure_with_its_neighbour(
    toy: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert experiments()["P2"].DEFAULT_SCALE == p2.DEFAULT_SCALE
    found = p2.reproduce(1.0, toy)
    assert Reproduction.model_validate_json(found.model_dump_json()) == found
    json.dumps(json.loads(found.model_dump_json()), allow_nan=False)
    cells = [row for row in found.rows if row.what in ("test accuracy", "label inference") and "epochs" in row.setting]
    assert len([row for row in cells if "CNN" in row.setting]) == 2 * 2 * 2
    # Printed by the paper: accuracy and attack of its first cell, whose sigma it does not say; 0.5 at each sigma.
    assert [row.paper for row in rows(found, "test accuracy", "scheme", "100 records, 1 epochs")] == [0.9875] * 3
    assert [row.paper for row in rows(found, "label inference", "scheme", "100 records, 1 epochs")] == [0.1314] * 3
    claims = rows(found, "epsilon, claimed and proved")
    assert [row.paper for row in claims] == [0.5] * 18
    assert [row.outcome is Outcome.REPRODUCED for row in claims] == [row.ours.value <= 0.5 for row in claims]
    for row in rows(found, "label inference", "CNN"):
        assert row.ours.value == 1.0  # one gradient without noise names its label
        assert row.outcome is Outcome.OURS_ALONE
    highest = rows(found, "label inference", "highest")
    assert [row.outcome is Outcome.REPRODUCED for row in highest] == [row.ours.value <= 0.14 for row in highest]
    assert {chart.title for chart in found.charts} >= {"Accuracy at sigma 8", "Epsilon proved at 60,000 records"}
    curve = next(chart for chart in found.charts if chart.title == "Accuracy at sigma 2")
    assert [line.x for line in curve.series] == [[1.0, 3.0]] * 2

    monkeypatch.setattr(p2_models, "train", lambda *_, **__: pytest.fail("was trained again"))
    again = p2.reproduce(1.0, toy)
    assert again.rows == found.rows


def test_at_a_smaller_scale_the_cells_of_the_table_are_not_compared(
    toy: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p2, "TABLE_RECORDS", (200,))
    monkeypatch.setattr(p2, "TABLE_EPOCHS", (1,))
    found = p2.reproduce(0.5, toy)
    for row in rows(found, "test accuracy", "scheme"):
        assert (row.outcome, row.note) == (Outcome.NOT_COMPARABLE, "run on 100 records")


@pytest.mark.parametrize("sigma", [8.0, 2.0])
def test_what_is_proved_is_the_price_of_dp_sgd_with_as_much_noise_as_a_record_meets(sigma: float) -> None:
    lots = Lots(60_000, 600, 2)
    for mode, noise in ((Mode.REPAIRED, sigma), (Mode.LITERAL, sigma / math.sqrt(2))):
        expected = account(DPSGD(noise_multiplier=noise).event(History(lots)), delta=1e-5)
        assert isinstance(expected, Guarantee)
        assert p2.proved(sigma, mode, lots).value == expected.epsilon
    assert scheme_of(sigma, Mode.LITERAL).claimed(History(lots)).epsilon == 0.5


def test_weights_kept_on_the_way_are_those_of_a_shorter_run() -> None:
    records, public = digits(80, 1), digits(60, 2)
    scheme = LayerwiseDP(noise_multiplier=0.5, components=10, clip_shares=(0.5, 0.5))

    def job(epochs: int) -> Job:
        recipe = Recipe(architecture=Architecture("mlp", {"hidden": [6]}), lots=Lots(80, 20, epochs))
        return Job(recipe, scheme, records, public=public)

    watch = Snapshots(job(4).recipe.lots, (2, 4))
    whole = train(job(4), np.ones((1, 80), bool), [5], device="cpu", probe=watch)
    short = train(job(2), np.ones((1, 80), bool), [5], device="cpu")
    assert sorted(watch.kept) == [2, 4]
    for number, run in ((2, short), (4, whole)):
        for name, value in watch.kept[number].items():
            torch.testing.assert_close(value, run.parameters[f"1.{name}"][0], rtol=1e-5, atol=1e-6)


def test_a_model_kept_on_the_way_takes_images_and_a_second_look_trains_nothing(
    toy: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(1.0, toy)
    found = bench.models(scheme_of(2.0), 100, (3, 1))
    assert list(found) == [1, 3]
    assert found[1](torch.from_numpy(bench.test.x[:5])).shape == (5, 10)
    monkeypatch.setattr(p2_models, "train", lambda *_, **__: pytest.fail("was trained again"))
    again = bench.models(scheme_of(2.0), 100, (1, 3))
    torch.testing.assert_close(again[3].state_dict(), found[3].state_dict())
    assert not set(bench.pool.row_digests()[-100:]) & set(bench.members(100).row_digests())  # public ones are outside


def test_labels_are_read_off_plain_gradients_and_hidden_by_noise() -> None:
    records = digits(60, 3)
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [8]}), lots=Lots(60, 20, 1))
    model = train(Job(recipe, NoDefense(), records), np.ones((1, 60), bool), [1], device="cpu").one(0)
    shares = [
        inferred_labels(model, records.x, records.y, rule, seed=1, device="cpu")
        for rule in (None, LayerwiseGaussian(4.0, 1e-4), LayerwiseGaussian(4.0, 50.0))
    ]
    assert shares[0].value == 1.0
    assert shares[1].value == 1.0  # clipping alone hides no label
    assert shares[2].low is not None
    assert shares[2].low < 0.1 < 0.3 > (shares[2].value or 1)


def test_a_difference_of_rates_has_limits_that_hold_together() -> None:
    one = Estimate(value=0.9, low=0.85, high=0.95, method="")
    other = Estimate(value=0.8, low=0.7, high=0.88, method="")
    found = p2._difference(one, other)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, -0.03, 0.25))


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broken_layerwise_dp", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_literal_scheme_is_shown_to_pass_the_claim_and_the_repaired_one_is_not() -> None:
    module = example()
    literal, repaired = module.measure(Mode.LITERAL), module.measure(Mode.REPAIRED)
    assert literal.at_sigma < literal.claimed == 0.5 < literal.shown <= literal.proved
    assert repaired.shown <= repaired.proved == repaired.at_sigma < repaired.claimed
