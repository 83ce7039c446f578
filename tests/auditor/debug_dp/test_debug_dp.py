"""`auditor debug-dp` against the bug zoo: each mistake is seen by the check that is meant to, sound code by none."""

import json
import re
from pathlib import Path

import bug_zoo
import numpy as np
import pytest
import torch
from bug_zoo.__main__ import collect
from scipy import stats
from typer.testing import CliRunner

from auditor.cli.main import app
from auditor.debug_dp.battery import Status, run_battery
from auditor.debug_dp.check import checks
from auditor.debug_dp.claim import Claim
from auditor.debug_dp.implementation import check_implementation, find_implementation
from reports.exit_codes import ExitCode

ROOT = Path(__file__).parents[3]
REPEATED = ("loss_of_runs", "direction_of_runs", "size_of_runs")


def battery(name, *, seed=0, **settings):
    torch.manual_seed(seed)
    implementation = (
        find_implementation(f"bug_zoo.{name}") if isinstance(name, str) else check_implementation("x", name)
    )
    return run_battery(implementation, rng=np.random.default_rng(seed), **settings)


def results(found):
    return {result.name: result for result in found.results}


# ---- the zoo


@pytest.mark.parametrize("name", bug_zoo.names())
def test_each_mistake_is_seen_by_the_checks_that_are_meant_to(name: str) -> None:
    meant = set(bug_zoo.seen_by(name))
    found = battery(name, only=meant)
    assert {result.name for result in found.violated} == meant
    assert found.exit_code is ExitCode.EXCEEDED
    for result in found.violated:
        invariant = next(check.invariant for check in checks() if check.name == result.name)
        assert result.sentence.startswith(f"fails: {invariant}; ")


@pytest.mark.parametrize("name", bug_zoo.CORRECT)
def test_sound_code_is_flagged_by_nothing(name: str) -> None:
    flagged = [seed for seed in range(5) if battery(name, seed=seed, skip=(*REPEATED, "dirac_canaries")).violated]
    assert len(flagged) <= 1  # two of 5 have a chance of 2% at the nominal 5%
    found = battery(name, seed=3, runs=30)
    assert found.exit_code is ExitCode.PASS
    assert {result.status for result in found.results} <= {Status.HOLDS, Status.NOT_APPLICABLE}


@pytest.mark.slow
@pytest.mark.parametrize("name", bug_zoo.CORRECT)
def test_sound_code_is_flagged_at_most_nominally(name: str) -> None:
    flagged = sum(bool(row["violated"]) for row in collect(name, 200, runs=40))
    assert stats.binomtest(flagged, 200, 0.05, alternative="greater").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", bug_zoo.names())
def test_each_mistake_is_seen_with_power(name: str) -> None:
    meant = bug_zoo.seen_by(name)
    rows = collect(name, 100, runs=200, only=meant)
    seen = {check: sum(check in row["violated"] for row in rows) for check in meant}
    assert min(seen.values()) >= 95, seen


@pytest.mark.parametrize("check", ["noise_scale", "noise_repeats", "normaliser", "steps"])
def test_p_values_of_sound_code_are_not_too_small(check: str) -> None:
    small = [
        (results(battery("correct:train", seed=seed, only=(check,)))[check].p_value or 0) <= 0.25 for seed in range(20)
    ]
    assert stats.binomtest(sum(small), 20, 0.25, alternative="greater").pvalue > 1e-3


def test_the_auditor_never_seeds_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.random, "manual_seed", lambda seed: pytest.fail("seeded"))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("seeded"))
    implementation = find_implementation("bug_zoo.correct:train")
    before = torch.get_rng_state()
    run_battery(implementation, runs=8, skip=("dirac_canaries",))
    assert not torch.equal(before, torch.get_rng_state())  # nor is the state put back between calls


# ---- sound, though not to the letter


def scaled(constant: float):
    """A step that divides signal and noise by another public constant."""
    from bug_zoo.correct import clipped_sum, update, with_noise

    def train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        total = with_noise(clipped_sum(model, x, y, max_grad_norm), noise_multiplier * max_grad_norm)
        update(model, optimizer, total, constant * expected_batch_size)

    return train_step


@pytest.mark.parametrize("constant", [0.125, 10.0])
def test_another_public_constant_is_no_fault(constant: float) -> None:
    assert not battery(scaled(constant), skip=REPEATED).violated


def test_more_noise_than_promised_is_no_fault() -> None:
    from bug_zoo.correct import train_step

    def twice(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        train_step(
            model, optimizer, x, y, max_grad_norm=max_grad_norm, noise_multiplier=2 * noise_multiplier,
            expected_batch_size=expected_batch_size,
        )  # fmt: skip

    assert not battery(twice, skip=REPEATED).violated


def normalised(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
    """Every gradient is lifted or cut to the clipping norm, "automatic clipping" without a stabiliser."""
    from bug_zoo.correct import gradient_of, update, with_noise

    total = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        gradient = gradient_of(model, x[i : i + 1], y[i : i + 1])
        norm = torch.sqrt(sum(g.square().sum() for g in gradient)).clamp(min=1e-30)
        for t, g in zip(total, gradient, strict=True):
            t += g / norm * max_grad_norm
    update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)


def test_lifting_small_gradients_is_no_fault() -> None:
    flagged = [seed for seed in range(5) if battery(normalised, seed=seed, skip=(*REPEATED, "dirac_canaries")).violated]
    assert len(flagged) <= 1


def test_fewer_visits_than_are_priced_are_no_fault() -> None:
    from bug_zoo.correct import train

    def rarely(model, x, y, *, sampling_probability, **settings):
        train(model, x, y, sampling_probability=sampling_probability / 2, **settings)

    flagged = [seed for seed in range(10) if battery(rarely, seed=seed, only=("sampler", "steps")).violated]
    assert len(flagged) <= 2


def test_a_unit_is_not_taken_from_contributions_that_outrun_their_noise() -> None:
    from bug_zoo.correct import clipped_sum, update, with_noise

    def four_times(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        total = [4 * t for t in clipped_sum(model, x, y, max_grad_norm)]
        update(model, optimizer, with_noise(total, noise_multiplier * max_grad_norm), expected_batch_size)

    found = results(battery(four_times, only=("sensitivity", "noise_scale")))
    assert found["sensitivity"].status is Status.VIOLATED
    assert " 4 times as far" in found["sensitivity"].sentence
    assert found["noise_scale"].status is Status.HOLDS


def test_repeated_runs_see_a_missing_clip_and_bound_epsilon() -> None:
    found = battery("no_clipping:train_step", runs=80, only=REPEATED)
    shown = results(found)
    for name in ("loss_of_runs", "direction_of_runs"):
        assert shown[name].status is Status.VIOLATED
        assert 0.3 < shown[name].bound.lower <= shown[name].bound.ceiling


def test_repeated_runs_see_a_normaliser_from_the_number_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opacus")
    monkeypatch.syspath_prepend(str(ROOT / "examples/debug_dp"))
    torch.manual_seed(0)
    implementation = find_implementation("opacus_engine:train")
    claim = Claim(records=256)
    found = run_battery(implementation, claim, runs=100, only=("size_of_runs",), rng=np.random.default_rng(0))
    (size,) = found.results
    assert found.claim.epsilon == pytest.approx(0.14, abs=0.005)
    assert size.status is Status.VIOLATED
    assert size.bound is not None
    assert 2 < size.bound.lower <= size.bound.ceiling


# ---- code that breaks, or cannot be judged


def test_a_crash_is_told_from_a_fault_and_hides_none() -> None:
    def refuses_much(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        if len(x) > 20:
            raise RuntimeError("too\nmany")

    found = battery(refuses_much, only=("noise_scale",))
    assert found.exit_code is ExitCode.INCOMPLETE
    assert "raised RuntimeError in refuses_much, line" in found.results[0].sentence
    assert "too many" in found.results[0].sentence
    found = battery(refuses_much, only=("noise_scale", "empty_lot"))  # moves nothing: a fault beside the crash
    assert found.exit_code is ExitCode.EXCEEDED


def test_code_that_ends_the_process_is_a_crash() -> None:
    import sys

    def leaves(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        sys.exit(0)

    found = battery(leaves, only=("noise_scale",))
    assert found.exit_code is ExitCode.INCOMPLETE
    assert "raised SystemExit" in found.results[0].sentence


def test_a_state_that_is_no_tensors_is_a_crash() -> None:
    def returns_arrays(model, x, y, **settings):
        return {name: value.numpy() for name, value in model.state_dict().items()}

    found = battery(returns_arrays, only=("noise_scale",))
    assert found.exit_code is ExitCode.INCOMPLETE
    assert "left no tensor '0.weight'" in found.results[0].sentence


def test_nan_is_a_crash() -> None:
    def diverges(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        with torch.no_grad():
            next(model.parameters()).mul_(float("nan"))

    (found,) = battery(diverges, only=("noise_repeats",)).results
    assert found.status is Status.CRASHED
    assert "NaN or infinity in '0.weight'" in found.sentence


def test_updates_that_differ_without_noise_are_inconclusive() -> None:
    from bug_zoo.correct import train_step

    def wavers(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size):
        keep = torch.rand(len(x)) < 0.5
        train_step(
            model, optimizer, x[keep], y[keep], max_grad_norm=max_grad_norm, noise_multiplier=noise_multiplier,
            expected_batch_size=expected_batch_size,
        )  # fmt: skip

    found = battery(wavers, only=("sensitivity",))
    assert found.results[0].status is Status.INCONCLUSIVE
    assert found.exit_code is ExitCode.INCONCLUSIVE


def test_a_used_up_budget_is_inconclusive() -> None:
    found = battery("correct:train_step", budget=1e-9)
    assert found.exit_code is ExitCode.INCONCLUSIVE
    assert any("--budget" in result.sentence for result in found.results)


def test_a_training_may_return_its_model_or_state() -> None:
    from bug_zoo.correct import train

    def returning(what):
        def trained(model, x, y, **settings):
            import copy

            model = copy.deepcopy(model)
            train(model, x, y, **settings)
            return model if what == "model" else model.state_dict()

        return trained

    for what in ("model", "state"):
        assert not battery(returning(what), only=("noise_scale", "sensitivity")).violated


# ---- the command


def run(*arguments: str):
    return CliRunner().invoke(app, ["debug-dp", *arguments])


def test_the_command_writes_strict_json_and_says_what_fails(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "found.json"
    found = run("bug_zoo.layer_without_noise:train_step", "--only", "noise_scale", "--json", str(file), "-q")
    assert found.exit_code == 1
    assert "fails: the noise in each tensor" in found.stdout
    assert "at least inf" in found.stdout
    record = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert record["violated"] == ["noise_scale"]
    assert record["exit_code"] == 1
    assert record["checks"][0]["bound"]["lower"] == "Infinity"


def test_prints_of_the_code_stay_off_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text(
        "from bug_zoo.correct import train_step as quiet\n"
        "def train_step(model, optimizer, x, y, **settings):\n    print('LOUD')\n"
        "    quiet(model, optimizer, x, y, **settings)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = run("loud:train_step", "--only", "empty_lot", "-q")
    assert found.exit_code == 0
    assert "LOUD" not in found.stdout
    assert "LOUD" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nocolon"], 2, "PACKAGE.MODULE:FUNCTION"),
        (["nowhere_at_all:train"], 2, "no module 'nowhere_at_all'"),
        (["bug_zoo.correct:trian"], 2, "'train'"),
        (["bug_zoo:CORRECT"], 2, "is a tuple, not a function"),
        (["bug_zoo.correct:clip"], 2, "does not fit"),
        (["bug_zoo.correct:train", "--budget", "0"], 2, "--budget"),
        (["bug_zoo.correct:train", "--batch-size", "500"], 2, "1..64"),
        (["bug_zoo.correct:train", "--only", "noise"], 2, "no check 'noise'"),
        (["bug_zoo.correct:train", "--only", "sampler", "--skip", "sampler"], 2, "no check is left"),
        (["broken_import:train"], 4, "ZeroDivisionError"),
        (["leaving_import:train"], 4, "SystemExit"),
        (["missing_import:train"], 4, "No module named 'not_installed'"),
    ],
)
def test_bad_input(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_import.py").write_text("1 / 0\n")
    (tmp_path / "leaving_import.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "missing_import.py").write_text("import not_installed\n")
    monkeypatch.chdir(tmp_path)
    found = run(*arguments, "-q")
    assert found.exit_code == code
    assert words in re.sub(r"\s+", " ", found.stderr)
    assert "Traceback" not in found.output


def test_the_documentation_names_every_check_and_mistake() -> None:
    text = (ROOT / "docs/debug-dp.md").read_text()
    assert [check.name for check in checks() if f"`{check.name}`" not in text] == []
    assert [name for name in bug_zoo.names() if f"`{name}`" not in text] == []
