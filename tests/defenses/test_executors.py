"""Where a model is trained does not change it, and a worker that dies costs nothing but time."""

import functools
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import executor_tasks as work
import numpy as np
import pytest
import torch

from defenses.architectures import Architecture
from defenses.defense import Defense, History, Prepared
from defenses.engine.executors import Executor, InProcess, Processes, RayTasks
from defenses.engine.store import ModelStore
from defenses.engine.training import Job
from defenses.ensemble import Ensemble
from defenses.errors import PlanError, TrainingError
from defenses.progress import OnProgress, Progress, silent
from defenses.recipe import Recipe
from defenses.records import Records, Table
from defenses.sampling import Lots
from defenses.updates import SGD

RAY = pytest.param("ray", marks=pytest.mark.cluster)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Ray cluster of one machine with two CPUs and no GPU, which this process has joined."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # before the first import: a token of its own, or Ray writes one at home
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield started
        ray.shutdown()
        started.shutdown()


def named(name: str, request: pytest.FixtureRequest) -> Executor:
    if name == "ray":
        request.getfixturevalue("cluster")
    return {"in-process": InProcess(), "processes": Processes(2), "ray": RayTasks()}[name]


@pytest.fixture(params=["in-process", "processes", RAY])
def executor(request: pytest.FixtureRequest) -> Executor:
    return named(request.param, request)


@pytest.fixture(params=["processes", RAY])
def workers(request: pytest.FixtureRequest) -> Executor:
    """The executors whose workers can die."""
    return named(request.param, request)


def results(executor: Executor, function: Callable[[Any, OnProgress], Any], tasks: list[Any]) -> list[Any]:
    found = dict(executor.run(function, tasks, on_progress=lambda index, progress: None))
    return [found[index] for index in range(len(tasks))]


def test_every_task_gets_its_own_result(executor: Executor) -> None:
    shared = np.random.default_rng(0).normal(size=(6, 50_000))
    expected = [work.dot(shared, task, silent) for task in range(6)]
    assert results(executor, functools.partial(work.dot, shared), list(range(6))) == expected


def test_no_tasks_need_no_workers(executor: Executor) -> None:
    assert results(executor, functools.partial(work.dot, np.zeros((1, 1))), []) == []


@pytest.mark.parametrize(
    "error", [PlanError("no such thing; take another"), TrainingError("diverged"), ValueError("3 is too many")]
)
def test_an_error_keeps_its_type_and_message(executor: Executor, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        results(executor, work.fail, [error])
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if not isinstance(error, ValueError):  # raised on purpose, so nobody needs to see where
        assert caught.value.__cause__ is None


def test_a_worker_that_lacks_a_module_says_which(workers: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ModuleType("absent")
    exec("def function(task, on_progress): return task", absent.__dict__)
    monkeypatch.setitem(sys.modules, "absent", absent)
    with pytest.raises(TrainingError, match=r"No module named 'absent'.*wherever workers run"):
        results(workers, absent.function, [0, 1])


def test_processes_compute_with_the_threads_they_are_given() -> None:
    assert results(Processes(1, threads=2), work.threads, [0]) == [2]


@pytest.mark.cluster
def test_ray_tasks_compute_with_as_many_threads_as_cpus(cluster: Any) -> None:
    assert results(RayTasks(cpus_per_task=2), work.threads, [0]) == [2]
    assert results(RayTasks(cpus_per_task=0.5), work.threads, [0]) == [1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Processes(0), "workers is 0"),
        (lambda: Processes(1, threads=0), "threads is 0"),
        (lambda: RayTasks(cpus_per_task=0), "cpus_per_task is 0"),
        (lambda: RayTasks(gpus_per_task=-1), "gpus_per_task is -1"),
        (lambda: RayTasks(retries=-1), "retries is -1"),
    ],
)
def test_impossible_numbers_are_refused(make: Callable[[], Executor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_worker_that_is_killed_is_replaced(workers: Executor, tmp_path: Path) -> None:
    assert results(workers, functools.partial(work.die_first, tmp_path), [0, 1, 2, 3]) == [0, 1, 4, 9]
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("processes", "fewer workers"), pytest.param("ray", "2 attempts.*cpus_per_task", marks=pytest.mark.cluster)],
)
def test_workers_that_die_again_and_again_are_given_up(name: str, message: str, request: pytest.FixtureRequest) -> None:
    executor = named(name, request)
    if isinstance(executor, RayTasks):
        executor = replace(executor, retries=1)
    with pytest.raises(TrainingError, match=message):
        results(executor, work.die, [0])


def gone(pids: list[int], seconds: float = 20) -> bool:
    """Wait until these processes are no more (a zombie is no more)."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@needs_proc
def test_an_error_ends_what_still_runs(workers: Executor, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="enough"):
        results(workers, functools.partial(work.fail_when_other_waits, tmp_path), [0, 1])
    assert gone([int(path.name) for path in tmp_path.iterdir()])


@needs_proc
@pytest.mark.parametrize("name", ["processes", RAY])
def test_ctrl_c_leaves_no_orphans(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    address = request.getfixturevalue("cluster").address if name == "ray" else ""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    running = subprocess.Popen(
        [sys.executable, work.__file__, name, str(tmp_path), address],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # to the whole group, as a terminal does
    try:
        _, said = running.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2, said
    assert said.rstrip().endswith("KeyboardInterrupt"), said
    assert said.count("Traceback") == 1, said
    assert gone(pids)


@pytest.mark.cluster
def test_a_share_of_a_gpu_is_asked_for_only_where_there_is_one(cluster: Any) -> None:
    executor = RayTasks(gpus_per_task=0.5)
    assert [share for share, _ in results(executor, work.granted, [0])] == [{"CPU": 1.0}]
    machine = cluster.add_node(num_cpus=1, num_gpus=1)
    try:
        found = results(executor, work.granted, [0, 1])
        assert [share for share, _ in found] == [{"CPU": 1.0, "GPU": 0.5}] * 2
        assert len({pid for _, pid in found}) == 2  # a process that has used one GPU cannot move to another
    finally:
        cluster.remove_node(machine)


@pytest.mark.cluster
def test_more_cpus_than_any_machine_has_are_waited_for_aloud(
    cluster: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "wait", lambda pending: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        results(RayTasks(cpus_per_task=64), work.granted, [0])
    assert "no machine of the Ray cluster has the 64 CPUs of a task (the largest has 2)" in caplog.text


@pytest.mark.cluster
def test_a_cluster_that_does_not_answer_is_named(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(TrainingError, match=r"no Ray cluster could be joined at 127\.0\.0\.1:9 .*ray start --head"):
        results(RayTasks("127.0.0.1:9"), work.granted, [0])


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"privacy-auditor\[cluster\]"):
        results(RayTasks(), work.granted, [0])


@dataclass(frozen=True)
class Held(Defense):
    """Leaves the number of its process in a folder, and trains once it is told to go on."""

    name = "held"
    title = "a scheme that waits"
    paper = "none"
    folder: str

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        (Path(self.folder) / str(os.getpid())).touch()
        while not (Path(self.folder) / "go").exists():
            time.sleep(0.01)
        return Prepared(records, {"folder": self.folder})

    def event(self, history: History) -> None:
        return None


INCLUDED = np.random.default_rng(1).random((5, 60)) < 0.5
SEEDS = [11, 12, 13, 14, 15]


def train(store: ModelStore, defense: Defense, on_progress: OnProgress = silent) -> Ensemble:
    rng = np.random.default_rng(0)
    records = Records(rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 2, 60), 2, Table((), "y", ()))
    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [4]}), lots=Lots(30, 5, 2), optimizer=SGD(0.5))
    job = Job(recipe, defense, records)
    return store.train(job, INCLUDED, SEEDS, device="cpu", width=2, on_progress=on_progress)


def same(one: Ensemble, other: Ensemble) -> bool:
    return one.traces == other.traces and all(
        torch.equal(value, other.parameters[name]) for name, value in one.parameters.items()
    )


@needs_proc
def test_models_are_the_same_bit_for_bit_though_a_worker_is_killed(workers: Executor, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    killed: list[int] = []

    def kill_one() -> None:
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            killed.extend(int(path.name) for path in pids.iterdir())
            time.sleep(0.01)
        os.kill(killed[0], signal.SIGKILL)
        (pids / "go").touch()

    killer = threading.Thread(target=kill_one)
    killer.start()
    told: list[Progress] = []
    if isinstance(workers, Processes):
        workers = Processes(1)  # each worker takes seconds to load torch, and all of them are replaced
    store = ModelStore((tmp_path / "there").as_uri(), executor=workers)
    found = train(store, Held(str(pids)), told.append)
    killer.join()
    assert killed[0] != os.getpid()
    assert gone([killed[0]])
    assert same(found, train(ModelStore(tmp_path / "here"), Held(str(pids))))
    assert (store.trained, store.loaded) == (5, 0)
    assert len(told) == 3  # blocks of 2, 2 and 1
    assert (told[-1].done, told[-1].total) == (5, 5)
    assert told[-1].detail.startswith("5 of 5 models done")
    again = ModelStore(tmp_path / "there", executor=workers)
    assert same(found, train(again, Held(str(pids))))
    assert (again.trained, again.loaded) == (0, 5)
