"""Where tasks run: in this process, in several on this machine, or on a Ray cluster.

An executor applies one pure function to tasks and hands back the results as they are done; it knows nothing of models.
The function carries what all tasks share (a data set, say), which travels once per worker and not with every task.
"""

import contextlib
import functools
import importlib
import logging
import os
import pickle
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from defenses.errors import AuditError, TrainingError
from defenses.progress import OnProgress, Progress, silent

Task = TypeVar("Task")
Result = TypeVar("Result")
Function = Callable[[Task, OnProgress], Result]
OnTaskProgress = Callable[[int, Progress], None]

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs a pure function over tasks."""

    def run(
        self, function: Function[Task, Result], tasks: Sequence[Task], *, on_progress: OnTaskProgress
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (index of the task, its result) as tasks are done, in any order; closing it ends what still runs.

        Args:
            function: From a task and a progress callback to a result. A worker may die and the task run again
                elsewhere, so that running it twice must do no more than running it once.
            tasks: What to run it on.
            on_progress: Called with the index of a task and how far it is, where the executor can tell.

        Raises:
            AuditError: What the function raised on purpose, as it raised it.
            TrainingError: If workers die again and again, or the cluster cannot be reached.
        """


@dataclass(frozen=True)
class InProcess:
    """One task after the other, here."""

    def run(
        self, function: Function[Task, Result], tasks: Sequence[Task], *, on_progress: OnTaskProgress
    ) -> Generator[tuple[int, Result], None, None]:
        """As in `Executor`; progress inside a task is reported."""
        for index, task in enumerate(tasks):
            yield index, function(task, functools.partial(on_progress, index))


@dataclass(frozen=True)
class Processes:
    """Worker processes on this machine, gone when the run ends, however it ends.

    If the system kills a worker (for want of memory, say), what was not done is tried once more.

    Attributes:
        workers: Processes, at least 1; each holds its own copy of what the tasks share.
        threads: Threads that one worker computes with, at least 1; results may depend on it in the last bits.
    """

    workers: int
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    def run(
        self, function: Function[Task, Result], tasks: Sequence[Task], *, on_progress: OnTaskProgress
    ) -> Generator[tuple[int, Result], None, None]:
        """As in `Executor`; progress inside a task is not reported."""
        from joblib.externals.loky import BrokenProcessPool

        if not tasks:
            return
        left = dict(enumerate(tasks))
        for last in (False, True):
            try:
                with contextlib.closing(self._attempt(function, left)) as outcomes:
                    for index, outcome in outcomes:
                        del left[index]
                        yield index, _result(outcome)
                return
            except BrokenProcessPool as error:
                if last:
                    raise TrainingError(
                        f"worker processes died twice, with {len(left)} of {len(tasks)} tasks left (out of memory?); "
                        f"use fewer workers (now {self.workers}) or a smaller stack width. What was finished is kept"
                    ) from error
                logger.warning("a worker process died; %d of %d tasks are tried again", len(left), len(tasks))

    def _attempt(
        self, function: Function[Task, Result], tasks: dict[int, Task]
    ) -> Generator[tuple[int, "Result | _Refusal"], None, None]:
        # A pool of its own, and not joblib.Parallel, whose pool is shared with everybody else in this process, outlives
        # the run, and does not exist at all for one worker.
        import cloudpickle  # not pickle: what the script itself defines has no module that a worker could import
        from joblib.externals.loky import ProcessPoolExecutor, as_completed

        pool = ProcessPoolExecutor(
            min(self.workers, len(tasks)),
            initializer=_enter_process,
            initargs=(cloudpickle.dumps(function),),
            env=_thread_limits(self.threads),
        )
        done = False
        try:
            futures = {pool.submit(_run_in_process, task): index for index, task in tasks.items()}
            for future in as_completed(futures):
                yield futures[future], future.result()
            done = True
        finally:
            pool.shutdown(wait=True, kill_workers=not done)


@dataclass(frozen=True)
class RayTasks:
    """Tasks of a Ray cluster; needs the extra ``privacy-auditor[cluster]``.

    A cluster that the program has already joined is used as it is and left as it is. Otherwise one is joined, or
    started on this machine, for the time of the run.

    Attributes:
        address: ``host:port`` or "auto"; None: what ``RAY_ADDRESS`` names, else a cluster that runs on this machine,
            else a new one.
        cpus_per_task: CPUs that a task takes, above 0; it computes with as many threads, and at least one.
        gpus_per_task: Share of a GPU that a task takes, at least 0; asked for only if the cluster has GPUs. Above 0 for
            training on "cuda", or Ray does not share the GPUs out.
        retries: How often a task may start again after its worker or machine died, at least 0.
    """

    address: str | None = None
    cpus_per_task: float = 1
    gpus_per_task: float = 0
    retries: int = 3

    def __post_init__(self) -> None:
        if not self.cpus_per_task > 0:
            raise ValueError(f"cpus_per_task is {self.cpus_per_task}; it must be above 0")
        for name, value in (("gpus_per_task", self.gpus_per_task), ("retries", self.retries)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}; it must be at least 0")

    def run(
        self, function: Function[Task, Result], tasks: Sequence[Task], *, on_progress: OnTaskProgress
    ) -> Generator[tuple[int, Result], None, None]:
        """As in `Executor`; progress inside a task is not reported."""
        if not tasks:
            return
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            self._join(ray)
        pending: dict[Any, int] = {}
        try:
            self._warn_of_waiting(ray)
            # Not by .options(): only so does Ray start a new worker for each task on a GPU, and a worker that has
            # computed on one GPU keeps to it, whichever it is given later.
            remote = ray.remote(
                num_cpus=self.cpus_per_task,
                num_gpus=self.gpus_per_task if ray.cluster_resources().get("GPU") else 0,
                max_retries=self.retries,
            )(_run_in_ray)
            # In a list, or Ray would unpack it before the worker knows where its modules are.
            shared = [ray.put(function)]
            pending = {remote.remote(shared, task, self._threads, sys.path): k for k, task in enumerate(tasks)}
            while pending:
                for done in ray.wait(list(pending))[0]:
                    outcome = self._get(ray, done)
                    yield pending.pop(done), _result(outcome)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    @property
    def _threads(self) -> int:
        return max(1, int(self.cpus_per_task))

    def _join(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an audit of private data reports to nobody
        host, _, port = (self.address or os.environ.get("RAY_ADDRESS", "")).rpartition(":")
        try:
            if port.isdigit() and "/" not in host:  # Ray itself waits for minutes and then ends the process
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            ray.init(
                address=self.address,
                include_dashboard=None if self.address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise TrainingError(
                f"no Ray cluster could be joined at {self.address or 'this machine'} ({error}); start one with "
                "`ray start --head`, or correct the address"
            ) from error

    def _warn_of_waiting(self, ray: Any) -> None:
        largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if largest < self.cpus_per_task:  # not an error: an autoscaler may be about to start a machine
            logger.warning(
                "no machine of the Ray cluster has the %g CPUs of a task (the largest has %g); waiting for one to join",
                self.cpus_per_task,
                largest,
            )

    def _get(self, ray: Any, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error  # Ray's own exception has the whole traceback for its message
        except ray.exceptions.RayError as error:
            raise TrainingError(
                f"a Ray task was not finished in {self.retries + 1} attempts ({str(error).splitlines()[0]}); look at "
                "the memory of the workers, raise cpus_per_task so that fewer tasks run at once, or raise retries. "
                "What was finished is kept"
            ) from error


@dataclass(frozen=True)
class _Refusal:
    """What a function raised on purpose; sent as a value, because an executor wraps exceptions in its own traceback."""

    error: AuditError


def _attempt(function: Function[Task, Result], task: Task) -> "Result | _Refusal":
    try:
        return function(task, silent)
    except AuditError as error:
        return _Refusal(error)


def _result(outcome: "Result | _Refusal") -> Result:
    if isinstance(outcome, _Refusal):
        raise outcome.error
    return outcome


_process_function: Callable[[Any, OnProgress], Any]  # of this worker process; a pool offers no other place for it


def _enter_process(pickled: bytes) -> None:
    global _process_function
    try:
        _process_function = pickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        _process_function = functools.partial(_refuse, str(error))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides


def _run_in_process(task: Any) -> Any:
    return _attempt(_process_function, task)


def _run_in_ray(shared: list[Any], task: Any, threads: int, path: list[str]) -> Any:
    sys.path.extend(entry for entry in path if entry not in sys.path)
    # Arrays lie in memory that the machine's workers share read-only, and nothing here writes to them.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    os.environ.update(_thread_limits(threads))
    ray = _import_ray()
    try:
        function = ray.get(shared[0])
    except ray.exceptions.RaySystemError as error:
        function = functools.partial(_refuse, str(error).splitlines()[0])
    if "torch" in sys.modules:  # loaded before the limits were set; what does without torch need not wait for it
        sys.modules["torch"].set_num_threads(threads)
    return _attempt(function, task)


def _refuse(reason: str, task: Any, on_progress: OnProgress) -> Any:
    raise TrainingError(
        f"a worker cannot load what it shall run ({reason}); install the modules of networks and schemes wherever "
        "workers run"
    )


def _thread_limits(threads: int) -> dict[str, str]:
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise TrainingError(
            "training on a cluster needs Ray, which is not installed; run `pip install 'privacy-auditor[cluster]'`"
        ) from error
