"""P1 done again: figures that are what they are called, an experiment that runs whole, and the demonstration."""

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats

from auditor.context import RunContext
from auditor.reproductions import local_accuracy, local_costs, p1
from auditor.reproductions.local_accuracy import ADULT, MNIST, SOURCE, Case, schemes
from auditor.reproductions.local_costs import NodeTimes, linear_gradients, mean_of
from auditor.workspace import Workspace
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.guarantee import Guarantee
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.local_dp import LocalDP
from reports.records.estimate import Estimate
from reports.records.reproduction import Outcome, Reproduction

ROOT = Path(__file__).parents[3]
rng = np.random.default_rng(5)


def table(n: int) -> Records:
    return Records(rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 3, n), 3, Table((), "y", ()))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found_with_its_interval(power: float) -> None:
    nodes = (1, 3, 10, 30, 100)
    covered = 0
    for _ in range(200):
        spread = np.exp(0.1 * rng.standard_normal((5, 4)))
        found = NodeTimes(nodes, 0.01 * np.array(nodes)[:, None] ** power * spread).exponent
        assert found.value == pytest.approx(power, abs=0.1)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= power <= found.high
    assert stats.binom.cdf(covered, 200, 0.95) > 0.001


def test_means_have_students_interval_and_a_single_one_has_none() -> None:
    values = rng.normal(3.0, 1.0, 7)
    found = mean_of(values, unit="model")
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    single = mean_of([2.0], unit="model")
    assert (single.value, single.low, single.high) == (2.0, None, None)


def test_gradients_of_the_linear_classifier_are_those_of_autograd() -> None:
    records = table(9)
    weights = rng.normal(size=(3, 7))
    found = linear_gradients(weights, records.x.astype(np.float64), records.y)
    for row, (x, y) in enumerate(zip(records.x, records.y, strict=True)):
        matrix = torch.tensor(weights, requires_grad=True)
        logits = matrix @ torch.tensor([*x.astype(np.float64), 1.0])
        torch.nn.functional.cross_entropy(logits[None], torch.tensor([y])).backward()
        assert matrix.grad is not None
        np.testing.assert_allclose(found[row], matrix.grad.flatten().numpy(), atol=1e-12)


def test_every_node_is_timed_and_takes_its_time() -> None:
    found = local_costs.node_times(table(50), table(40), nodes=(1, 20), each=8, repetitions=3)
    assert found.seconds.shape == (2, 3)
    assert (found.seconds[1] > found.seconds[0]).all()
    assert found.per_node.value == pytest.approx(1000 * found.seconds[1].mean() / 20)


def test_savings_are_shares_of_the_central_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every piece of work taking a known time, each reading is a known share."""
    seconds = itertools.cycle([10.0, 4.0, 6.0, 3.0, 0.25])  # central, plain, gradients, source, noise of 16 examples
    monkeypatch.setattr(local_costs, "seconds_of", lambda *_: next(seconds))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=Lots(32, 16, 2))
    server, source, both = local_costs.savings(recipe, table(32), table(40), repetitions=3, device="cpu")
    assert server.share.value == pytest.approx(60.0)  # 4 of 10
    assert source.share.value == pytest.approx(30.0)  # 3 and 4 of 10
    assert both.share.value == pytest.approx(30.0)  # 6, and four times a quarter
    assert server.share.low == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([0.5, 0.85, 0.86], 2.0), ([0.86, 0.5, 0.86], 4.0), ([0.86, 0.86, 0.5], None), ([0.9, 0.9, 0.9], 1.0)],
)
def test_accuracy_is_kept_from_an_epsilon_on(accuracies: list[float], expected: float | None) -> None:
    estimates = [Estimate(value=value, method="a test") for value in accuracies]
    found = local_accuracy._kept((1.0, 2.0, 4.0), estimates, Estimate(value=0.87, method="a test"))
    assert found.value == expected
    assert (found.reason is None) is (expected is not None)


def test_every_curve_claims_epsilon_0_and_only_the_repaired_ones_prove_something() -> None:
    history = History(Lots(1000, 100, local_accuracy.EPOCHS))
    for name, scheme in schemes(ADULT, 2.0).items():
        if not isinstance(scheme, LocalDP):
            continue
        assert replace(scheme, mode=Mode.LITERAL).claimed(history).epsilon == 2.0
        proved = account_run(scheme, history, delta=0.0)
        assert isinstance(proved, Guarantee) is (scheme.mode is Mode.REPAIRED)
        if isinstance(proved, Guarantee):
            assert proved.epsilon == (10.0 if "gradients alone" in name else 2.0)
    assert set(schemes(MNIST, 2.0)) == set(MNIST.curves)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything small: few epsilons, nodes and repetitions, and no calibration of DP-SGD."""
    few: dict[str, tuple[object, ...]] = {"epsilons": (1.0, 1024.0), "printed": (1.0,)}
    curves = (*MNIST.curves, "literal, stepped rule")
    for name, case in (("ADULT", ADULT), ("MNIST", MNIST)):
        options = {key: getattr(case, key) for key in Case.__dataclass_fields__} | few | {"curves": curves}
        monkeypatch.setattr(p1, name, Case(**options))
    monkeypatch.setattr(p1, "NODES", (1, 4, 16))
    monkeypatch.setattr(p1, "REPETITIONS", 2)
    monkeypatch.setattr(p1, "TIMED_RECORDS", {"adult": 200, "mnist": 100})


@pytest.mark.parametrize("second", ["adult", pytest.param("mnist", marks=pytest.mark.slow)])
def test_the_whole_experiment_runs_small(
    second: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_dir: Path
) -> None:
    shrink(monkeypatch)
    if second == "adult":
        monkeypatch.setattr(p1, "MNIST", p1.ADULT)
    context = RunContext(workspace=Workspace(tmp_path), data_dir=data_dir, device="cpu")
    found = p1.reproduce(0.01, context)
    assert Reproduction.model_validate(json.loads(found.model_dump_json())) == found
    rows = {(row.what, row.setting.split(", linear classifier, 5 epochs")[-1].lstrip(", ")): row for row in found.rows}
    exponent = next(row for row in found.rows if row.what.startswith("power of the number"))
    assert exponent.paper == 1.0
    assert [row.paper for row in found.rows if row.what.startswith("percent")] == [40.0] * 6
    claimed = rows["epsilon: claimed by the paper, proved here", "literal, scaled rule"]
    assert claimed.outcome is Outcome.NOT_REPRODUCED  # nothing can be proved
    assert claimed.ours is not None
    assert "unaccounted" in (claimed.ours.reason or "")
    assert rows["epsilon: claimed by the paper, proved here", SOURCE].outcome is Outcome.REPRODUCED
    gradients = rows["epsilon: claimed by the paper, proved here", MNIST.curves[2]]
    assert gradients.outcome is Outcome.NOT_REPRODUCED
    assert gradients.ours is not None
    assert gradients.ours.value == 5.0
    assert {chart.title for chart in found.charts} >= {"The paper's two budget rules", "Cost by the number of nodes"}


def demonstration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("broken_local_dp", ROOT / "examples/broken/local_dp.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_literal_mode_is_shown_to_be_broken_and_the_repaired_one_is_not() -> None:
    demo = demonstration()
    for name in demo.SHOWN:
        for mode in Mode:
            scheme, bound = demo.shown(name, mode, 80, seed=1)
            claimed = scheme.claimed(History(demo.LOTS)).epsilon
            assert (bound.lower > claimed) is (mode is Mode.LITERAL)
            assert bound.ceiling > claimed  # or the audit could not have found it
