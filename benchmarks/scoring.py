"""Time and memory to score 50,000 records with 256 shadow models by LiRA and RMIA, and to take signals from logits.

Each case runs in a process of its own, so that its peak memory is its own. Training and querying models is left out.
"""

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.membership.lira import Variance, lira_scores
from attacks.membership.rmia import rmia_scores, tuned_a
from attacks.membership.signals import logit_confidence, probability

RECORDS, MODELS, POPULATION, CLASSES = 50_000, 256, 10_000, 10

Array = npt.NDArray[Any]
Work = Callable[[], object]


def draw(rng: np.random.Generator, as_signal: Callable[[Array], Array]) -> tuple[Array, Array, Array, Array, Array]:
    """Draw signals of target (n,), shadows (k, n), who was in (k, n), and the population's (z,), (k, z)."""
    ease, ease_population = rng.normal(scale=2, size=RECORDS), rng.normal(scale=2, size=POPULATION)
    shadows, population = np.empty((MODELS, RECORDS)), np.empty((MODELS, POPULATION))
    included = np.empty((MODELS, RECORDS), dtype=np.bool_)
    for k in range(MODELS):  # row by row, or the drawing would set the peak that is to be measured
        included[k] = rng.random(RECORDS) < 0.5
        shadows[k] = as_signal(ease + included[k] + rng.normal(size=RECORDS))
        population[k] = as_signal(ease_population + rng.normal(size=POPULATION))
    target = as_signal(ease + (rng.random(RECORDS) < 0.5) + rng.normal(size=RECORDS))
    return target, shadows, included, as_signal(ease_population + rng.normal(size=POPULATION)), population


def lira(rng: np.random.Generator, *, online: bool, variance: Variance) -> Work:
    target, shadows, included, _, _ = draw(rng, np.asarray)
    return lambda: lira_scores(target, shadows, included, online=online, variance=variance)


def rmia(rng: np.random.Generator, *, online: bool, tuned: bool = False) -> Work:
    signals = draw(rng, lambda logit: 1 / (1 + np.exp(-logit)))
    _, shadows, included, _, population = signals
    if not tuned:
        return lambda: rmia_scores(*signals, online=online)
    import sklearn.metrics  # noqa: F401  # tuning imports it when called; that is no part of the time

    return lambda: rmia_scores(*signals, online=online, a=tuned_a(shadows, included, population, gamma=1.0))


def signal(rng: np.random.Generator, *, take: Callable[[Array, Array], Array]) -> Work:
    # The attacks hold the logits of one model at a time; one draw serves for all, since the time is in the arithmetic.
    logits, y = rng.normal(scale=3, size=(RECORDS, CLASSES)), rng.integers(0, CLASSES, RECORDS)
    return lambda: np.stack([take(logits, y) for _ in range(MODELS)])


CASES: dict[str, Callable[[np.random.Generator], Work]] = {
    "LiRA online, fixed variance": partial(lira, online=True, variance=Variance.FIXED),
    "LiRA online, per-record variance": partial(lira, online=True, variance=Variance.PER_RECORD),
    "LiRA offline, fixed variance": partial(lira, online=False, variance=Variance.FIXED),
    "LiRA offline, per-record variance": partial(lira, online=False, variance=Variance.PER_RECORD),
    "RMIA online": partial(rmia, online=True),
    "RMIA offline, a given": partial(rmia, online=False),
    "RMIA offline, a tuned on shadows": partial(rmia, online=False, tuned=True),
    "logits to LiRA confidence": partial(signal, take=logit_confidence),
    "logits to RMIA probability": partial(signal, take=probability),
}


def measure(repeats: int = 5) -> list[dict[str, Any]]:
    """Return a row per case: median seconds over the repeats, and MiB that memory rose above that of the inputs."""
    rows = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        for case in CASES:
            seconds, peak = fresh.submit(_measured, case, repeats).result()
            rows.append({"case": case, "records": RECORDS, "models": MODELS, "seconds": seconds, "peak_mib": peak})
    return rows


def _measured(case: str, repeats: int) -> tuple[float, float]:
    work = CASES[case](np.random.default_rng(0))
    gc.collect()
    before, seconds = _peak_mib(), []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), _peak_mib() - before


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss may be that of the parent, from before the program was replaced
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    rows = measure()
    wide = max(map(len, CASES))
    print(f"{'case':{wide}}  records  models  seconds  peak MiB")
    for row in rows:
        print(
            f"{row['case']:{wide}}  {row['records']:7d}  {row['models']:6d}  "
            f"{row['seconds']:7.3f}  {row['peak_mib']:8.0f}"
        )


if __name__ == "__main__":
    main()
