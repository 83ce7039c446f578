"""Epsilon proved against epsilon shown, on correct DP-SGD at epsilon 1, 2, 4, 8 and 10 (delta 1e-5), on MNIST.

- White-box: one run of 102 steps (a pool of 5,000, q = 0.03, the small CNN) with 800 Dirac canaries, toggled at every
  step. Repeats give the usual figure, and count, with simulated ones, how often it is above the truth.
- One run, white-box: 1,000 Dirac canaries in or out of the whole run, scored by likelihood ratio, and by plain sums.
- One run, black-box: 1,000 mislabelled images in or out of one run, scored by how much their loss fell.
- Many runs, black-box: 1,000 records in every lot for 10 steps, weights pretrained on other images, a blank canary;
  2,000 runs with it and 2,000 without. Annamalai and De Cristofaro (2024) publish 7.21 of 10 for MNIST of this size.

Data are searched for in the folder that AUDITOR_DATA names. A rung that is done is kept, and not done again when the
command is given again.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import PARTS, Settings, Style, kept, note, table

NAME = "ladder"
DELTA, CONFIDENCE = 1e-5, 0.95


@dataclass(frozen=True)
class Sizes:
    """What a ladder takes."""

    epsilons: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 10.0)
    pool: int = 5_000
    step_canaries: int = 800
    run_canaries: int = 1_000
    repeats: int = 10
    simulated: int = 1_000
    pretraining: int = 10_000
    members: int = 1_000
    steps: int = 10
    runs: int = 2_000
    device: str = "cpu"


QUICK = Sizes(
    epsilons=(8.0,), pool=2_000, step_canaries=256, run_canaries=100, repeats=2, simulated=100, members=100, runs=100
)


def run(settings: Settings) -> dict[str, Any]:
    sizes = QUICK if settings.quick else Sizes()
    sizes = replace(sizes, repeats=settings.rounds(sizes.repeats, sizes.repeats), device=settings.device)
    rows = [
        row | {"epsilon": epsilon}
        for epsilon in sizes.epsilons
        for part in (_steps, _one_run, _black_box, _many_runs)
        for row in _kept(part, epsilon, sizes)
    ]
    return {
        "settings": asdict(sizes) | {"delta": DELTA, "confidence": CONFIDENCE, "quick": settings.quick},
        "unit": "epsilon in nats; seconds",
        "rows": rows,
    }


def show(result: dict[str, Any], style: Style) -> str:
    columns: dict[str, str | Callable[[Any], Any]] = {
        "target": "epsilon",
        "audit": "audit",
        "proved": "proved",
        "by GDP": "gaussian",
        "of proved": lambda row: None if row["gaussian"] is None else row["gaussian"] / row["proved"],
        "of proved, repeats": lambda row: None if row["usual"] is None else row["usual"] / row["proved"],
        "by Clopper-Pearson or one-run": "by_rates",
        "of proved ": lambda row: row["by_rates"] / row["proved"],
        "ceiling": "ceiling",
        "runs above": "above",
        "simulated above": "simulated_above",
        "seconds": "seconds",
    }
    return table(result["rows"], columns, style)


def figure_of(result: dict[str, Any]) -> str:
    """Return the figure (SVG): what each audit shows against what is proved, its ceiling, and the seconds it takes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from reports.pages.drawing import COLORS, INK, LINES, canvas, to_svg

    audits: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(result["rows"], key=lambda row: row["proved"]):
        audits.setdefault(row["audit"], []).append(row)
    with canvas(7.2, 5.0) as (figure, axes):
        largest = max(row["proved"] for row in result["rows"])
        truth = np.linspace(0, largest, 200)  # no straight line on these axes
        axes.plot(truth, truth, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="all that is proved")
        for place, (audit, rows) in enumerate(audits.items()):
            x = [row["proved"] for row in rows]
            y = [row["by_rates"] if row["gaussian"] is None else row["gaussian"] for row in rows]
            seconds = sorted(row["seconds"] for row in rows)[len(rows) // 2]
            look: dict[str, Any] = {"color": COLORS[place % len(COLORS)], "linestyle": LINES[place % len(LINES)]}
            shape = "" if rows[0]["gaussian"] is None else ", by GDP"
            axes.plot(x, y, marker="o", markersize=4, linewidth=1.8, label=f"{audit}{shape} ({seconds:,.0f} s)", **look)
            ceilings = [(a, row["ceiling"]) for a, row in zip(x, rows, strict=True) if row["ceiling"] <= 6 * largest]
            if ceilings:
                axes.plot(*zip(*ceilings, strict=True), "_", color=look["color"], markersize=14, markeredgewidth=1.6)
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.05, 6 * largest)
        axes.set_xlabel("Epsilon proved (delta 1e-5)")
        axes.set_ylabel("Epsilon shown (log scale above 1); dashes: ceilings")
        axes.grid(visible=True, axis="y")
        figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
        return to_svg(figure)


def _kept(part: Callable[[float, Sizes], list[dict[str, Any]]], epsilon: float, sizes: Sizes) -> list[dict[str, Any]]:
    """Return the rows of one part of a rung."""

    def make() -> list[dict[str, Any]]:
        note(f"ladder: epsilon {epsilon:g}, {part.__name__.strip('_').replace('_', ' ')}")
        return part(epsilon, sizes)

    rows: list[dict[str, Any]] = kept([part.__name__, epsilon, asdict(sizes), Path(__file__).read_text()], make, PARTS)
    return rows


@functools.cache
def _images() -> Any:
    from auditor.datasets import load

    return load("mnist")


def _job(epsilon: float, sizes: Sizes) -> Any:
    from defenses.architectures import Architecture
    from defenses.defense import Job
    from defenses.recipe import Recipe
    from defenses.sampling import Lots
    from defenses.schemes.dp_sgd import DPSGD

    lots = Lots(sizes.pool, 3 * sizes.pool // 100, 3)
    recipe = Recipe(architecture=Architecture("cnn"), lots=lots, learning_rate=0.5)
    return Job(recipe, DPSGD(epsilon=epsilon), _images().take(np.arange(sizes.pool)))


def _proved(job: Any) -> float:
    from defenses.accounting import account_run
    from defenses.defense import History

    found: Any = account_run(job.defense, History(job.recipe.lots), delta=DELTA)
    return float(found.epsilon)


def _row(audit: str, proved: float, seconds: float, by_rates: Any, gaussian: Any = None) -> dict[str, Any]:
    return {
        "audit": audit,
        "proved": proved,
        "gaussian": None if gaussian is None else gaussian.lower,
        "by_rates": by_rates.lower,
        "ceiling": by_rates.ceiling if gaussian is None else gaussian.ceiling,
        "usual": None,
        "above": None,
        "simulated_above": None,
        "seconds": seconds,
    }


def _steps(epsilon: float, sizes: Sizes) -> list[dict[str, Any]]:
    from auditor.white_box.step_audit import WhiteBoxOptions, audit_steps, claim_of, observe_steps
    from auditor.white_box.step_bounds import THRESHOLD, implied_epsilon, mu_limits

    job, watch = _job(epsilon, sizes), WhiteBoxOptions(canaries=sizes.step_canaries)
    claim, proved = claim_of(job), _proved(job)
    began = time.perf_counter()
    audit = functools.partial(audit_steps, job, delta=DELTA, confidence=CONFIDENCE, watch=watch, device=sizes.device)
    found = audit(seed=0)
    seconds = time.perf_counter() - began
    noise = claim.noise_multiplier
    grid = (THRESHOLD, THRESHOLD - noise, THRESHOLD + noise)
    limits = functools.partial(mu_limits, balanced=True, error=1 - CONFIDENCE, thresholds=grid)
    # A limit on mu above the truth is a bound above the proved epsilon, without the accountant's time.
    shown, simulated = [found.gaussian_mu], 0
    for repeat in range(1, sizes.repeats):
        seen = observe_steps(job, seed=repeat, watch=watch, device=sizes.device)
        shown.append(limits(seen.values, seen.present)[0])
    above = sum(mu > 1 / noise for mu in shown)
    rng = np.random.default_rng(0)
    for _ in range(sizes.simulated):
        present = rng.random(found.trials) < 0.5
        simulated += limits(present + noise * rng.standard_normal(found.trials), present)[0] > 1 / noise
    row = _row("white-box, every step", proved, seconds, found.clopper_pearson, found.gaussian)
    return [
        row
        | {
            "usual": implied_epsilon(float(np.median(shown)), claim, delta=DELTA),
            "above": f"{above} of {len(shown)}",
            "simulated_above": simulated / sizes.simulated,
        }
    ]


def _one_run(epsilon: float, sizes: Sizes) -> list[dict[str, Any]]:
    from auditor.epsilon.one_run_bound import one_run_from_scores
    from auditor.white_box.gradient_canaries import log_likelihood_ratios
    from auditor.white_box.step_audit import WhiteBoxOptions, claim_of, observe_one_run
    from defenses.records import Inclusion

    job = _job(epsilon, sizes)
    claim, proved = claim_of(job), _proved(job)
    began = time.perf_counter()
    seen = observe_one_run(job, seed=0, watch=WhiteBoxOptions(canaries=sizes.run_canaries), device=sizes.device)
    seconds = time.perf_counter() - began
    likelihood = log_likelihood_ratios(
        seen.values, sampling_probability=claim.sampling_probability, noise_multiplier=claim.noise_multiplier
    )
    rows = []
    for name, scores in (("likelihood ratios", likelihood), ("sums", seen.values.sum(axis=0))):
        judged = one_run_from_scores(
            scores, seen.included, inclusion=Inclusion.INDEPENDENT, delta=DELTA, confidence=CONFIDENCE
        )
        rows.append(_row(f"white-box, one run, {name}", proved, seconds, judged.bound))
    return rows


def _black_box(epsilon: float, sizes: Sizes) -> list[dict[str, Any]]:
    from attacks.membership.signals import log_probability
    from auditor.epsilon.one_run_bound import one_run_from_scores
    from defenses.engine.training import train
    from defenses.ensemble import module_logits
    from defenses.records import Inclusion

    m = sizes.run_canaries
    job, rng = _job(epsilon, sizes), np.random.default_rng(1)
    records = _images().take(np.arange(sizes.pool + m // 2))
    y = records.y.copy()
    y[-m:] = (y[-m:] + rng.integers(1, records.classes, m)) % records.classes
    job, coins = replace(job, records=replace(records, y=y)), rng.random(m) < 0.5
    included = np.concatenate([np.ones(len(y) - m, dtype=np.bool_), coins])[None]
    proved, began = _proved(job), time.perf_counter()
    x = job.records.x[-m:]
    final = train(job, included, [2], device=sizes.device).logits(x)[0]
    first = module_logits(job.recipe.architecture.build(records.shape, records.classes, seed=2), x)
    scores = log_probability(final, y[-m:]) - log_probability(first, y[-m:])
    judged = one_run_from_scores(scores, coins, inclusion=Inclusion.INDEPENDENT, delta=DELTA, confidence=CONFIDENCE)
    return [_row("black-box, one run", proved, time.perf_counter() - began, judged.bound)]


@functools.cache
def _pretrained(n: int) -> Any:
    from defenses.architectures import Architecture
    from defenses.defense import Job
    from defenses.engine.training import train
    from defenses.recipe import Recipe
    from defenses.sampling import Lots
    from defenses.schemes.none import NoDefense

    recipe = Recipe(architecture=Architecture("mlp", {"hidden": [16]}), lots=Lots(n, 64, 4), learning_rate=0.1)
    job = Job(recipe, NoDefense(), _images().take(np.arange(n)))
    return train(job, np.ones((1, n), dtype=np.bool_), [1], device="cpu")


def _many_runs(epsilon: float, sizes: Sizes) -> list[dict[str, Any]]:
    from auditor.epsilon.many_run_audit import audit_many_runs, crafted_job
    from defenses.recipe import Recipe
    from defenses.sampling import Lots
    from defenses.schemes.dp_sgd import DPSGD

    pretrained = _pretrained(sizes.pretraining)
    others = _images().take(np.arange(30_000, 30_000 + 5 * sizes.members))
    lots = Lots(sizes.members, sizes.members, sizes.steps)
    recipe = Recipe(architecture=pretrained.architecture, lots=lots, learning_rate=1.0)
    job, canary = crafted_job(pretrained, others, recipe, DPSGD(epsilon=epsilon), members=sizes.members)
    proved, began = _proved(job), time.perf_counter()
    audit = functools.partial(audit_many_runs, job, canary, delta=DELTA, confidence=CONFIDENCE, device=sizes.device)
    found = audit(runs=sizes.runs, seed=0, width=8 if sizes.device == "cpu" else 256)
    seconds = time.perf_counter() - began
    return [_row("black-box, many runs", proved, seconds, found.clopper_pearson, found.gaussian)]
