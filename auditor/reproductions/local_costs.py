"""What local noise costs: seconds by the number of nodes, and against central DP-SGD, with intervals.

Seconds are the process's own where a CPU does the work, so that what else runs on the machine is not counted.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from defenses.defense import Defense, Job
from defenses.engine.training import train
from defenses.mechanisms.local.noisy_gradients import privatize_gradients
from defenses.mechanisms.local.preparation import public_statistics
from defenses.mechanisms.local.privatize import Source, privatize
from defenses.recipe import Recipe
from defenses.records import Records
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.local_dp import LocalDP
from defenses.schemes.none import NoDefense
from reports.records.estimate import Estimate

LEVEL = 0.95
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NodeTimes:
    """Seconds of all nodes together.

    Attributes:
        nodes: (m,) how many.
        seconds: (m, r) of r repetitions.
    """

    nodes: tuple[int, ...]
    seconds: Float64Array

    @property
    def exponent(self) -> Estimate:
        """The power of the number of nodes that seconds grow with."""
        x = np.log(np.repeat(self.nodes, self.seconds.shape[1]))
        fit = stats.linregress(x, np.log(self.seconds).ravel())
        reach = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * fit.stderr)
        slope = float(fit.slope)
        return Estimate(
            value=slope, low=slope - reach, high=slope + reach, level=LEVEL, n=len(x), unit="timing",
            method="least squares of log seconds on log nodes, t interval",
        )  # fmt: skip

    @property
    def per_node(self) -> Estimate:
        """Milliseconds of one node, where there are most of them."""
        return mean_of(1000 * self.seconds[-1] / self.nodes[-1], unit="timing")


def node_times(records: Records, public: Records, *, nodes: Sequence[int], each: int, repetitions: int) -> NodeTimes:
    """Time what the nodes do, one after the other, and what the server adds up.

    A node standardises, clips and noises its records, computes the gradient of a linear classifier for each, clips and
    noises it, and sends the sum; the server adds what the nodes send. What travels is not timed.

    Args:
        records: Where the nodes' records come from, in turn.
        public: Where statistics come from.
        nodes: Numbers of nodes, ascending.
        each: Records of a node.
        repetitions: How often each number is timed, in turn, so that a slow minute hits all alike.
    """
    source = Source(standardisation=public_statistics(public.x.reshape(len(public), -1)), epsilon=8.0)
    rows, rng = records.x.reshape(len(records), -1), np.random.default_rng(0)
    weights = np.zeros((records.classes, rows.shape[1] + 1))

    def node(number: int) -> Float64Array:
        place = np.arange(number * each, (number + 1) * each) % len(rows)
        x, _ = privatize(rows[place], source=source, rng=rng)
        gradients = linear_gradients(weights, x, records.y[place])
        sums: Float64Array = privatize_gradients(gradients, epsilon=1.0, max_grad_norm=1.0, rng=rng).sum(axis=0)
        return sums

    def all_of(count: int) -> float:
        total = np.zeros(weights.size)

        def work() -> None:
            for number in range(count):
                total[:] += node(number)

        return seconds_of(work)

    all_of(3)  # warms caches
    seconds = np.array([[all_of(count) for count in nodes] for _ in range(repetitions)]).T
    return NodeTimes(tuple(nodes), seconds)


def linear_gradients(weights: Float64Array, x: Float64Array, y: npt.NDArray[np.int64]) -> Float64Array:
    """Return each example's gradient (n, C (d + 1)) of the cross-entropy of a linear classifier with bias.

    Args:
        weights: (C, d + 1), the bias last.
        x: (n, d).
        y: (n,) labels.
    """
    with_one = np.hstack([x, np.ones((len(x), 1))])
    logits = with_one @ weights.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    found: Float64Array = np.einsum("nc,nd->ncd", shares, with_one).reshape(len(x), -1)
    return found


@dataclass(frozen=True)
class Saving:
    """How much cheaper than central DP-SGD something is.

    Attributes:
        what: Whose work is counted.
        share: Share of the central cost that is saved, in percent; negative where it costs more.
    """

    what: str
    share: Estimate


def savings(recipe: Recipe, records: Records, public: Records, *, repetitions: int, device: str) -> list[Saving]:
    """Time local DP against central DP-SGD on the same records, network, lots and epochs.

    The engine draws the sum of a lot's noises at once, as no user can; the work of clipping and noising each example by
    itself is timed apart, on a few, and added for every example of every epoch. All on one thread.

    Args:
        recipe: How all of them train.
        records: What they train on.
        public: Where statistics come from.
        repetitions: How often each is timed, in turn.
        device: Where training runs; noise is drawn by its owner on a CPU.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    timed = _timed(recipe, records, public, clock, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other on a busy machine, and the work is small
    try:
        for run in timed.values():
            run()  # records the step, warms caches
        rounds = [{name: run() for name, run in timed.items()} for _ in range(repetitions)]
    finally:
        torch.set_num_threads(threads)
    readings = {
        "the server's, which trains plainly on noised records": ("plain",),
        "everybody's, noise at the source": ("source", "plain"),
        "everybody's, noise at the source and on each gradient": ("gradients", "noise"),
    }
    return [Saving(what, _saved(rounds, parts)) for what, parts in readings.items()]


def _timed(
    recipe: Recipe, records: Records, public: Records, clock: Callable[[], float], *, device: str
) -> dict[str, Callable[[], float]]:
    """Return what is timed, by name; each runs once and returns its seconds."""
    members = np.ones((1, len(records)), dtype=np.bool_)
    source = LocalDP(source_epsilon=8.0)
    flat = records.x.reshape(len(records), -1)
    statistics = public_statistics(public.x.reshape(len(public), -1))
    made = Source(standardisation=statistics, epsilon=8.0)
    parameters = sum(
        value.numel()
        for value in recipe.architecture.build(records.shape, records.classes, seed=0).parameters()
    )  # fmt: skip
    lot = np.zeros((min(16, recipe.lots.batch_size), parameters))
    examples = recipe.lots.epochs * len(records)

    def training(defense: Defense, trained: Records = records) -> Callable[[], float]:
        job = Job(recipe, defense, trained, public=public)
        return lambda: seconds_of(lambda: train(job, members, [1], device=device), clock)

    noised = replace(records, x=privatize(flat, source=made)[0].astype(np.float32).reshape(records.x.shape))
    return {
        "central": training(DPSGD(noise_multiplier=1.0)),
        "plain": training(NoDefense(), noised),
        "gradients": training(replace(source, gradient_epsilon=1.0, alpha=0.0)),
        "source": lambda: seconds_of(lambda: privatize(flat, source=made)),
        "noise": lambda: (
            seconds_of(lambda: privatize_gradients(lot, epsilon=1.0, max_grad_norm=1.0)) * examples / len(lot)
        ),
    }


def _saved(rounds: Sequence[Mapping[str, float]], parts: Sequence[str]) -> Estimate:
    """Return the percentage of central DP-SGD's seconds that some parts save, over rounds of timings."""
    ratios = [math.log(sum(seconds[part] for part in parts) / seconds["central"]) for seconds in rounds]
    logs = mean_of(np.array(ratios), unit="timing")
    assert logs.value is not None
    assert logs.low is not None
    assert logs.high is not None
    low, value, high = (100 * (1 - math.exp(log)) for log in (logs.high, logs.value, logs.low))
    return Estimate(
        value=value, low=low, high=high, level=LEVEL, n=len(rounds), unit="timing",
        method="t interval of log ratios of timings in turn",
    )  # fmt: skip


def mean_of(values: npt.ArrayLike, *, unit: str) -> Estimate:
    """Return the mean of independent values with its t interval."""
    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean())
    if len(given) < 2:
        return Estimate(value=mean, method="a single one, without an interval", n=len(given), unit=unit)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(given) - 1) * given.std(ddof=1) / math.sqrt(len(given)))
    return Estimate(
        value=mean, low=mean - reach, high=mean + reach, level=LEVEL, method="mean, t interval", n=len(given), unit=unit
    )


def seconds_of(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds that something takes, by a clock of its own process."""
    began = clock()
    work()
    return clock() - began
