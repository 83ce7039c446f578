"""Proved against shown on real data and by whole runs: what the ladder promises, at its own sizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from auditor.white_box.step_audit import WhiteBoxOptions, observe_steps
from auditor.white_box.step_bounds import mu_limits
from benchmarks import ladder
from benchmarks.harness import Settings
from defenses.architectures import Architecture
from defenses.defense import Job
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD


@pytest.fixture
def on_mnist(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data_dir / "MNIST").is_dir():
        pytest.skip("MNIST is not in AUDITOR_DATA")
    monkeypatch.setattr(ladder, "PARTS", tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("on_mnist")
@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_a_white_box_audit_shows_nearly_all_on_mnist(epsilon: float) -> None:
    (row,) = ladder._steps(epsilon, replace(ladder.Sizes(), repeats=1, simulated=200))
    assert 0.92 * row["proved"] < row["gaussian"] < row["proved"]  # one run; the median of many is above 0.95
    assert 0.80 * row["proved"] < row["by_rates"] < row["proved"]
    assert row["simulated_above"] <= stats.binom.ppf(0.999, 200, 0.05) / 200


@pytest.mark.slow
@pytest.mark.usefixtures("on_mnist")
def test_many_runs_on_mnist_go_past_what_was_published() -> None:
    (row,) = ladder._many_runs(10.0, replace(ladder.Sizes(), runs=1000))
    assert 7.21 < row["gaussian"] < row["proved"]


@pytest.mark.slow
@pytest.mark.usefixtures("on_mnist")
def test_a_rung_that_is_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ladder.run(Settings(quick=True))
    for part in ("_steps", "_one_run", "_black_box", "_many_runs"):
        monkeypatch.setattr(ladder, part, _named_failure(part))
    assert ladder.run(Settings(quick=True)) == first
    assert len(ladder.show(first, "markdown").splitlines()) == 2 + len(first["rows"])


def _named_failure(name: str):  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise AssertionError(f"{name} was done again")

    fail.__name__ = name
    return fail


@pytest.mark.slow
def test_whole_runs_are_above_the_truth_at_most_at_their_rate() -> None:
    rng, noise, repeats = np.random.default_rng(0), 1.0, 100
    x = rng.normal(size=(200, 20)).astype(np.float32)
    records = Records(x, rng.integers(0, 4, 200), 4, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [16]}), lots=Lots(200, 20, 5), learning_rate=0.5)
    job, above = Job(recipe, DPSGD(noise_multiplier=noise), records), 0
    for seed in range(repeats):
        seen = observe_steps(job, seed=seed, watch=WhiteBoxOptions(canaries=128))
        above += mu_limits(seen.values, seen.present, balanced=True, error=0.05)[0] > 1 / noise
    assert above <= stats.binom.ppf(0.999, repeats, 0.05)
