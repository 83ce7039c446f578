"""The reproduction of P5: times and gains by hand, runs that the watching does not change, and a whole small one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from auditor.context import RunContext
from auditor.reproductions import experiments, learning_curve, p5
from auditor.reproductions.learning_curve import Curve
from auditor.workspace import Workspace
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job
from defenses.engine.training import train
from defenses.guarantee import Guarantee, Unaccounted
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes.adaptive_clipping import AdaptiveClipping
from reports.records.reproduction import Outcome, Reproduction


def images(n: int, labels: int = 3) -> Records:
    rng = np.random.default_rng(0)
    y = np.arange(n) % labels
    x = np.clip(rng.random((n, 1, 8, 8)) * 0.3 + y[:, None, None, None] / labels, 0, 1)
    return Records(x.astype(np.float32), y, labels, Image())


def context(folder: Path, data_dir: Path | None = None) -> RunContext:
    return RunContext(Workspace(folder), device="cpu", data_dir=data_dir)


def test_the_time_to_an_accuracy_is_read_between_epochs() -> None:
    curve = Curve([10.0, 20.0, 40.0], [0.3, 0.25, 0.5], "01")
    assert curve.time_to(0.3, start=0.1) == 10.0
    assert curve.time_to(0.2, start=0.1) == pytest.approx(5.0)
    assert curve.time_to(0.4, start=0.1) == pytest.approx(20 + 20 * 0.15 / 0.25)  # after the fall
    assert curve.time_to(0.1, start=0.1) == 0.0
    assert curve.time_to(0.6, start=0.1) == math.inf


def test_savings_are_to_the_accuracy_that_both_reach() -> None:
    quick, slow = Curve([10.0, 20.0], [0.5, 0.9], "1"), Curve([20.0, 40.0], [0.3, 0.5], "1")
    found = p5.saving([quick], [slow], start=0.1)
    assert found.value == pytest.approx(75.0)  # 0.5 after 10 seconds and not 40
    assert p5.saving([slow], [quick], start=0.1).value == pytest.approx(-300.0)
    two = p5.saving([quick, quick], [slow, quick], start=0.1)
    assert (two.value, two.n) == (pytest.approx(37.5), 2)
    nothing = p5.saving([Curve([1.0], [0.1], "0")], [quick], start=0.1)
    assert nothing.value is None
    assert nothing.reason is not None


def test_accuracies_and_gains_carry_intervals_of_the_right_unit() -> None:
    one, other = Curve([1.0], [0.75], "1110" * 25), Curve([1.0], [0.5], "0110" * 25)
    single = p5.accuracy([one])
    exact = stats.binomtest(75, 100).proportion_ci(0.95, "exact")
    assert (single.value, single.low, single.high) == pytest.approx((75.0, 100 * exact.low, 100 * exact.high))
    # 25 of 100 records differ, all one way: a paired interval is narrower than one of two independent rates.
    paired = p5.gain([one], [other])
    assert paired.value == 25.0
    assert paired.high == pytest.approx(25 + 1.96 * 100 * math.sqrt(0.25 * 0.75 / 99), rel=1e-3)
    runs = p5.gain([one, one, other], [other, other, other])
    low, high = stats.t.interval(0.95, 2, loc=50 / 3, scale=stats.sem([25.0, 25.0, 0.0]))
    assert (runs.value, runs.low, runs.high, runs.n) == (
        pytest.approx(50 / 3),
        pytest.approx(low),
        pytest.approx(high),
        3,
    )


def test_printed_accuracies_follow_from_printed_differences() -> None:
    printed = p5.PRINTED["cifar10"]
    found = [printed.of(name) for name in (p5.REPAIRED_NAME, p5.LITERAL_NAME, p5.SGD_NAME, p5.NADAM_NAME)]
    assert found == pytest.approx([72.30, 72.30, 61.70, 69.80])


def test_all_methods_but_the_literal_one_cost_the_same() -> None:
    history = History(Lots(100, 100, 2))
    for name, way in p5.methods(10).items():
        found = account_run(way.defense, history, delta=p5.DELTA)
        if name == p5.LITERAL_NAME:
            assert isinstance(found, Unaccounted)
        else:
            assert isinstance(found, Guarantee)
            assert 0.98 * p5.EPSILON < found.epsilon <= p5.EPSILON


def test_scale_one_is_the_whole_and_small_scales_are_small() -> None:
    assert p5.Size(1.0).network.options == {"depth": 11, "width": 1.0}
    assert p5.Size(1.0).lots(60_000) == Lots(60_000, 1024, 30)
    small = p5.Size(p5.DEFAULT_SCALE)
    assert small.network.options == {"depth": 11, "width": 0.125}
    assert small.lots(3000) == Lots(3000, 128, 7)


@pytest.mark.parametrize("mode", Mode)
def test_watching_a_run_does_not_change_it_and_it_is_kept(mode: Mode, tmp_path: Path) -> None:
    records, test = images(40), images(21)
    scheme = AdaptiveClipping(mode=mode, labels=3, noise_multiplier=0.5)
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [8]}), lots=Lots(40, 20, 3), learning_rate=0.05)
    job = Job(recipe, scheme, records)
    curve = learning_curve.learning_curve(job, test, seed=5, context=context(tmp_path))
    model = train(job, np.ones((1, 40), bool), [5], device="cpu")
    right = model.logits(test.x)[0].argmax(1) == test.y
    assert curve.right == "".join("01"[int(each)] for each in right)
    assert curve.accuracy[-1] == right.mean()
    assert len(curve.accuracy) == len(curve.seconds) == 3
    assert all(0 < before < after for before, after in zip(curve.seconds, curve.seconds[1:], strict=False))
    kept = list((tmp_path / "curves").iterdir())
    assert learning_curve.learning_curve(job, test, seed=5, context=context(tmp_path)) == curve  # to the last digit
    learning_curve.learning_curve(job, images(24), seed=5, context=context(tmp_path))
    learning_curve.learning_curve(job, test, seed=6, context=context(tmp_path))
    assert len(list((tmp_path / "curves").iterdir())) == len(kept) + 2


def test_a_whole_reproduction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p5, "load", lambda name, split="all", **_: images(30 if split == "test" else 60))
    monkeypatch.setattr(p5, "PRINTED", {"medical_mnist": p5.PRINTED["medical_mnist"]})
    assert experiments()["P5"].DEFAULT_SCALE == p5.DEFAULT_SCALE
    found = p5.reproduce(0.001, context(tmp_path))
    assert Reproduction.model_validate_json(found.model_dump_json()) == found
    json.dumps(json.loads(found.model_dump_json()), allow_nan=False)
    assert len(found.rows) == 12
    assert len(found.charts) == 1
    by_name = {row.what: row for row in found.rows}
    accuracy = by_name["accuracy in percent, DP-SGD"]
    assert (accuracy.paper, accuracy.outcome) == (58.20, Outcome.NOT_COMPARABLE)
    gain = by_name["gain in points, scheme, repaired, over DP-SGD"]
    assert (gain.paper, gain.tolerance) == (9.71, 3.0)
    assert gain.outcome in (Outcome.REPRODUCED, Outcome.NOT_REPRODUCED)
    literal = by_name["gain in points, scheme, literal, over DP-SGD"]
    assert "one run of the scheme" in literal.note
    assert "one run" not in gain.note
    monkeypatch.setattr(learning_curve, "train", None)  # a second run trains nothing
    again = p5.reproduce(0.001, context(tmp_path))
    assert again.rows == found.rows


@pytest.mark.parametrize(("name", "count", "shape"), [("mnist", 600, (1, 28, 28)), ("medical_mnist", 472, (1, 32, 32))])
def test_the_real_data_is_cut_to_size(
    name: str, count: int, shape: tuple[int, ...], tmp_path: Path, data_dir: Path
) -> None:
    records, test = p5.Size(0.01).data(name, context(tmp_path, data_dir))
    assert records.shape == test.shape == shape
    assert len(records) == count
    assert len(test) in (1794, 2000)
    assert not set(records.row_digests()) & set(test.row_digests())
