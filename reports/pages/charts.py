"""Figures of comparisons and of experiments done again, drawn from their records alone."""

import math

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from reports.pages import wording
from reports.pages.drawing import COLORS, FAINT, INK, LINES, MEMBERS, NONMEMBERS, Drawing, canvas, label, to_svg
from reports.records.comparison import ComparedRun, Comparison, Place, place_of
from reports.records.reproduction import Chart

_LEAST = 1e-2  # smaller epsilons are drawn here: nothing was shown
_LEGEND_INSIDE = 4  # with more series than that it would hide some of them
_MARKERS = ("o", "s", "^")


def three_epsilons(comparison: Comparison) -> Drawing:
    """Draw one row per run: what is claimed, proved and shown on one axis, and the accuracy beside it.

    Args:
        comparison: The record.
    """
    runs = comparison.runs
    largest = max([value for run in runs for value in _finite(run)] + [1.0])
    infinite = 10 ** math.ceil(math.log10(largest * 3))
    with canvas(9.6, 1.3 + 0.46 * len(runs)) as (figure, _):
        figure.clear()
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3.2, 1])
        for row, run in enumerate(runs):
            _epsilons_of(left, row, run, infinite)
            _accuracy_of(right, row, run)
        left.set_xscale("log")
        left.set_xlim(_LEAST * 0.8, infinite * 1.6)
        left.xaxis.set_major_formatter(
            FuncFormatter(
                lambda at, _: "none" if at >= infinite * 0.99 else "0" if at <= _LEAST * 1.01 else wording.compact(at)
            )
        )
        left.xaxis.set_minor_formatter(NullFormatter())
        left.set_xlabel("Epsilon (log scale; at the right end: no finite one)")
        left.set_yticks(range(len(runs)), [_two_lines(run) for run in runs])
        left.set_ylim(len(runs) - 0.5, -0.5)
        left.grid(visible=True, axis="both")
        right.set_xlim(0, 1)
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
        right.set_xlabel("Accuracy, left out")
        right.grid(visible=True, axis="both")
        for axes in (left, right):
            axes.set_axisbelow(True)
            sns.despine(ax=axes, left=True)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
        _legend(left)
        return Drawing(to_svg(figure), _alt(comparison))


def _two_lines(run: ComparedRun) -> str:
    varied = "" if run.value is None else f"\n{label((run.varied or '').replace('_', ' '))} {run.value:g}"
    return f"{label(run.label)}{varied}"


def _finite(run: ComparedRun) -> list[float]:
    if run.epsilons is None:
        return []
    epsilons = run.epsilons
    values = [one.epsilon for one in (epsilons.claimed, epsilons.proved) if one is not None]
    values += [one for bound in (epsilons.shown, epsilons.implied) if bound for one in (bound.lower, bound.ceiling)]
    return [value for value in values if value is not None and math.isfinite(value)]


def _epsilons_of(axes: Axes, row: int, run: ComparedRun, infinite: float) -> None:
    if run.epsilons is None:
        axes.annotate("did not run", (_LEAST, row), va="center", fontsize=9, color=FAINT)
        return
    epsilons, bad = run.epsilons, run.contradicted
    proved = epsilons.proved
    if proved is not None:
        at = infinite if proved.epsilon is None or math.isinf(proved.epsilon) else proved.epsilon
        axes.plot([at], [row], marker="s", color=NONMEMBERS, markersize=7, linestyle="none", zorder=3)
    claimed = epsilons.claimed
    if claimed is not None and claimed.epsilon is not None:
        at = min(claimed.epsilon, infinite)
        axes.plot(
            [at], [row], marker="D", markersize=8, markerfacecolor="none", markeredgecolor=INK, linestyle="none",
            markeredgewidth=1.4, zorder=4,
        )  # fmt: skip
    for bound, offset, mark in ((epsilons.shown, -0.16, ">"), (epsilons.implied, 0.16, "^")):
        if bound is None:
            continue
        low = max(bound.lower, _LEAST)
        axes.plot([_LEAST, low], [row + offset] * 2, color=MEMBERS, linewidth=3.2 if bad else 1.8, zorder=2)
        axes.plot([low], [row + offset], marker=mark, color=MEMBERS, markersize=8, linestyle="none", zorder=5)
        if math.isfinite(bound.ceiling) and bound is epsilons.shown:
            axes.plot([bound.ceiling], [row + offset], marker="|", color=FAINT, markersize=11, linestyle="none")


def _accuracy_of(axes: Axes, row: int, run: ComparedRun) -> None:
    found = run.accuracy_holdout
    if found is None or found.value is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [row, row], color=INK, linewidth=1.4)
    axes.plot([found.value], [row], marker="o", color=INK, markersize=6, linestyle="none")


def _legend(axes: Axes) -> None:
    entries = (
        ("claimed", {"marker": "D", "markerfacecolor": "none", "color": INK}),
        ("proved", {"marker": "s", "color": NONMEMBERS}),
        ("shown (at least)", {"marker": ">", "color": MEMBERS}),
        ("implied by steps", {"marker": "^", "color": MEMBERS}),
        ("most that could have been shown", {"marker": "|", "color": FAINT}),
    )
    for name, style in entries:
        axes.plot([], [], linestyle="none", label=name, **style)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)


def _alt(comparison: Comparison) -> str:
    said = [f"Claimed, proved and shown epsilon of {len(comparison.runs)} runs."]
    for run in comparison.runs:
        place = place_of(run)
        if place is Place.CONTRADICTED:
            said.append(f"{run.name}: {place}.")
    if len(said) == 1:
        said.append("Nothing that is promised is contradicted.")
    return " ".join(said)


def chart(found: Chart) -> Drawing:
    """Draw one chart of an experiment that was done again; the paper's own points are hollow, its lines dashed.

    Args:
        found: Its series.
    """
    many = len(found.series) > _LEGEND_INSIDE
    beneath = 0.21 * math.ceil(len(found.series) / 2) if many else 0.0
    with canvas(7.0, 4.2 + beneath) as (figure, axes):
        place = -1
        for series in found.series:
            point = series.paper and len(series.x) == 1  # what the paper prints of the series before it
            place += not point or place < 0
            color = COLORS[place % len(COLORS)]
            axes.plot(
                series.x,
                series.y,
                color=color,
                marker=_MARKERS[place // len(COLORS) % len(_MARKERS)],  # colours come again
                markerfacecolor="none" if series.paper else color,
                linestyle="none" if point else (0, (2, 2)) if series.paper else LINES[place % len(LINES)],
                linewidth=1.6,
                markersize=8 if point else 4.5,
                markeredgewidth=1.6 if point else 1.0,
                label=label(series.name, width=52),
            )
            if series.low is not None and series.high is not None:
                alpha = 0.07 if many else 0.15
                axes.fill_between(series.x, series.low, series.high, color=color, alpha=alpha, linewidth=0)
        for axis, scale, wanted in (
            (axes.xaxis, axes.set_xscale, found.log_x),
            (axes.yaxis, axes.set_yscale, found.log_y),
        ):
            if wanted:
                scale("log")
                axis.set_major_formatter(FuncFormatter(lambda value, _: wording.compact(value)))
                axis.set_minor_formatter(NullFormatter())
        if not found.log_x and all(x.is_integer() for series in found.series for x in series.x):
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))  # there is no epoch 1.5
        axes.set_xlabel(label(found.x_label, width=80))
        axes.set_ylabel(label(found.y_label, width=60))
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2} if many else {"loc": "best"}
        axes.legend(handlelength=3.6, **where)
        sns.despine(ax=axes)
        said = f"{found.title}: {found.y_label} against {found.x_label}, {len(found.series)} series."
        ends = [f"{one.name} ends at {one.y[-1]:.4g}" for one in found.series if one.y]
        return Drawing(to_svg(figure), f"{said} {'; '.join(ends)}.")
