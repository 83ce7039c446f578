"""The benchmarks' arithmetic with a clock that can be set, and whether what they compare computes the same thing."""

import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import __main__ as command_line
from benchmarks import dp_sgd_step, kills, membership, scaling, startup
from benchmarks.dp_sgd_step import NETS, OPACUS, Problem, builders
from benchmarks.harness import Settings, interleave, machine, peak_mib, ratios, spread, table, try_out, write
from benchmarks.shadow_training import art, data_loader, loop, make_work, opacus_loop, ours
from defenses.records import Image, Records


class Clock:
    """Seconds that pass only when a case says so."""

    def __init__(self) -> None:
        self.now, self.calls, self.slowdown = 0.0, [], 1.0

    def __call__(self) -> float:
        return self.now

    def case(self, name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.calls.append(name)
            self.now += seconds * self.slowdown

        return work


def test_every_round_times_each_case_once_in_a_rotated_order() -> None:
    clock = Clock()
    cases = {name: clock.case(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    times = interleave(cases, 4, clock=clock)
    assert "".join(clock.calls) == "abc" + "abc" + "bca" + "cab" + "abc"  # a warm-up, then four rounds
    assert times == {"a": [1.0] * 4, "b": [2.0] * 4, "c": [4.0] * 4}
    clock.calls.clear()
    assert interleave(cases, 1, 5, warm_up=False, clock=clock)["b"] == [2.0]
    assert "".join(clock.calls) == "aaaaabbbbbccccc"
    with pytest.raises(ValueError, match="at least 1"):
        interleave(cases, 0)


def test_ratios_survive_a_machine_that_slows_down() -> None:
    clock = Clock()
    cases = {"fast": clock.case("fast", 1.0), "slow": clock.case("slow", 3.0)}
    times: dict[str, list[float]] = {"fast": [], "slow": []}
    for slowdown in (1.0, 1.5, 10.0):
        clock.slowdown = slowdown
        for name, (one,) in interleave(cases, 1, clock=clock).items():
            times[name].append(one)
    found = ratios(times, "fast")
    assert found["slow"] == {"median": pytest.approx(3), "q1": pytest.approx(3), "q3": pytest.approx(3), "rounds": 3}
    assert found["fast"]["median"] == 1


def test_spread_is_median_and_quartiles() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert spread(values) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "rounds": 5}
    low, middle, high = np.percentile(range(8), [25, 50, 75])
    assert spread(list(range(8))) == {"median": middle, "q1": low, "q3": high, "rounds": 8}
    assert spread([7.0]) == {"median": 7.0, "q1": 7.0, "q3": 7.0, "rounds": 1}


def test_a_case_that_fails_is_a_reason_and_no_crash() -> None:
    def fail() -> None:
        raise NotImplementedError("this layer is not supported\nand more")

    working, failures = try_out({"good": lambda: None, "bad": fail})
    assert list(working) == ["good"]
    assert failures == {"bad": "NotImplementedError: this layer is not supported"}


def test_tables_align() -> None:
    rows = [{"name": "one", "time": spread([1.0, 2.0, 3.0])}, {"name": "another", "time": None}]
    text = table(rows, {"name": "name", "ms": "time"}).splitlines()
    assert text == [
        "name                   ms",
        "-------  ----------------",
        "one      2.00 (1.50-2.50)",
        "another                 -",
    ]
    markdown = table(rows, {"name": "name", "ms": "time"}, "markdown").splitlines()
    assert markdown[1] == "| ------- | ---------------: |"
    assert len({len(line) for line in markdown}) == 1


def test_results_name_the_machine_and_no_place(tmp_path: Path) -> None:
    path = write("example", {"rows": [{"seconds": spread([1.0])}]}, tmp_path)
    found = json.loads(path.read_text())
    assert path.name.startswith("example-")
    assert found["benchmark"] == "example"
    assert found["rows"] == [{"seconds": {"median": 1.0, "q1": 1.0, "q3": 1.0, "rounds": 1}}]
    assert set(found["machine"]) >= {"cpu", "cores", "threads", "ram_gib", "platform", "cuda", "versions"}
    assert found["machine"]["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    import platform

    for private in (platform.node(), str(Path.home()), str(tmp_path)):
        assert private not in json.dumps(machine())


def test_peak_memory_is_this_process_s_own() -> None:
    before = peak_mib()
    assert before is not None
    block = np.ones(20 * 2**20)  # 160 MiB
    after = peak_mib()
    assert after is not None
    assert after >= block.nbytes / 2**20
    assert after >= before


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.title)
def test_every_opacus_mode_takes_the_step_of_the_engine(net: dp_sgd_step.Net) -> None:
    problem = Problem(net.architecture, 6, noise_multiplier=0.0, max_grad_norm=0.3, learning_rate=1.0)
    found = taken(problem)
    assert len(found) == len(OPACUS) + 2
    start = [value.detach() for value in problem.model().parameters()]
    moved = max(float((a - b).abs().max()) for a, b in zip(found["ours"], start, strict=True))
    for name in (name for name in found if name != "plain"):
        assert farthest(found[name], found["ours"]) < 1e-4 * moved, name
    assert farthest(found["plain"], found["ours"]) > moved  # so clipping does something


def test_without_clipping_all_take_the_plain_step() -> None:
    found = taken(Problem(NETS[0].architecture, 6, noise_multiplier=0.0, max_grad_norm=1e6, learning_rate=1.0))
    for name, weights in found.items():
        assert farthest(weights, found["plain"]) < 1e-6, name


def taken(problem: Problem) -> dict[str, list[torch.Tensor]]:
    """Return the weights after one step of every case."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus
        for name, build in builders().items():
            trial = build(problem)
            trial.step()
            found[name] = trial.weights()
    return found


def farthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def test_the_mnist_example_has_its_published_size() -> None:
    sizes = [sum(p.numel() for p in Problem(net.architecture, 1).model().parameters()) for net in NETS]
    assert sizes == [784 * 128 + 128 + 128 * 10 + 10, 26_010, 1_199_882]


@pytest.mark.parametrize("private", [False, True])
def test_shadow_baselines_run(private: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1, 28, 28)).astype(np.float32)
    records = Records(x, rng.integers(0, 10, 40), 10, Image())
    work = make_work(NETS[0].architecture, records, models=2, epochs=1, private=private)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus and ART
        for case in (ours, opacus_loop) if private else (ours, loop, data_loader, art):
            case(work)


def test_growth_is_the_exponent_of_the_upper_half() -> None:
    rows = [
        {"network": "mlp", "sweep": "models", "models": k, "seconds": spread([3.0 * k**1.5])} for k in (1, 2, 4, 8, 16)
    ]
    (found,) = scaling.growth(rows)
    assert (found["from"], found["to"]) == (4, 16)
    assert found["exponent"] == pytest.approx(1.5)


def test_scaling_covers_1_to_256_models_and_quick_covers_less() -> None:
    full, quick = scaling.points(Settings()), scaling.points(Settings(quick=True))
    assert [point["models"] for point in full if (point["network"], point["sweep"]) == ("mlp", "models")] == [
        2**k for k in range(9)
    ]
    assert max(point["models"] for point in quick) == 4


def test_torch_is_seen_where_it_is_loaded() -> None:
    written = "import time:        23 |         23 |     {}\n"
    assert startup.names_torch(written.format("torch._C") + written.format("torch"))
    assert not startup.names_torch(written.format("torchvision") + written.format("torch.version"))
    assert not startup.loads_torch(("-c", "import auditor"))


def test_the_command_line_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = type(sys)("benchmarks.scoring")
    rows = [{"case": "lira", "records": 10, "models": 4, "seconds": 0.5, "peak_mib": 12.0}]
    scores.measure = lambda repeats: rows * repeats  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.scoring", scores)
    with warnings.catch_warnings():  # keeps the filters of the tests
        assert command_line.main(["scoring", "--repeats", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["rows"] == rows * 2
    assert capsys.readouterr().out.count("lira") == 2
    with pytest.raises(SystemExit):
        command_line.main(["nothing"])


def test_membership_compares_every_attack_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = membership.run(Settings(quick=True))
    attacks = [row["attack"] for row in first["rows"]]
    assert len(attacks) == len(set(attacks)) >= 15
    assert sum(attack.startswith("ART") for attack in attacks) == 3
    for row in first["rows"]:
        mean, low, high = row["auc"]
        assert 0 <= low <= mean <= high <= 1
        assert row["tpr_at_fpr_0.001"] is None  # 300 non-members cannot resolve it
    best = {row["attack"]: row["auc"][0] for row in first["rows"]}
    assert best["RMIA, online"] > best["loss threshold"]
    monkeypatch.setattr(membership._Bench, "row", lambda *_: pytest.fail("was done again"))
    assert membership.run(Settings(quick=True)) == first
    assert len(membership.show(first, "markdown").splitlines()) == 2 + len(attacks) + 2


def test_intervals_over_targets_are_students() -> None:
    found = membership._over_targets([0.5, 0.6, 0.7, 0.6])
    expected = stats.ttest_1samp([0.5, 0.6, 0.7, 0.6], 0).confidence_interval(0.95)
    assert found == pytest.approx([0.6, *expected])
    assert membership._over_targets([0.5, None]) is None


def test_a_kill_takes_the_whole_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
pathlib.Path("worker").write_text(str(worker.pid))
pathlib.Path("work").mkdir()
time.sleep(100)
"""
    monkeypatch.setattr(kills, "CALL", program)
    (tmp_path / "trial").mkdir()
    ended = kills._start(kills.CASES[0], tmp_path / "trial", 0.1)
    assert ended.code is None
    assert ended.seconds >= 0.1
    worker = Path("/proc") / (tmp_path / "trial" / "worker").read_text() / "stat"
    with suppress(FileNotFoundError, ProcessLookupError):  # it is gone
        for _ in range(1000):  # the kernel takes a moment
            if worker.read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.01)
        pytest.fail("the worker outlived the kill")


def test_a_kill_that_leaves_another_result_or_more_files_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first start of each trial is killed after it wrote half of the result; the second takes it for done.
    program = """
import json, pathlib, time
out, work = pathlib.Path("out/report.json"), pathlib.Path("work")
again = work.exists()
work.mkdir(exist_ok=True)
if not again and "trial" in str(pathlib.Path.cwd()):
    out.parent.mkdir()
    (work / "left.part").touch()
    out.write_text(json.dumps({"found": 1, "started": time.time()}))
    time.sleep(100)
out.parent.mkdir(exist_ok=True)
time.sleep(0.2)
out.write_text(json.dumps({"found": 1 if again else 2, "started": time.time()}))
"""
    monkeypatch.setattr(kills, "CALL", program)
    monkeypatch.setattr(kills, "AGAIN", 0.0)
    row = kills._measure(kills.CASES[0], tmp_path, 2, np.random.default_rng(0))
    assert (row["trials"], row["kills"], row["resumed"], row["failed"], row["tracebacks"]) == (2, 2, 2, 0, 0)
    assert row["different"] >= 2
    assert row["left over"] == 2
