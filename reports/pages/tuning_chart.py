"""The trace of a tuning, drawn from its record alone: what was found and how accurate it was, against the knob."""

import textwrap

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from reports.measures import EPSILON, Scale, measure
from reports.pages import wording
from reports.pages.drawing import COLORS, FAINT, INK, LINES, Drawing, canvas, label, to_svg
from reports.records.report import Status
from reports.records.tuning import Look, Probe, Stage, Tuning

_PANEL = 2.3
_COLORS = tuple(color for color in COLORS if color != COLORS[3])


def trace(tuning: Tuning) -> Drawing:
    """Draw one panel per measure, with its limit, and one for the accuracy; the chosen setting is marked.

    Args:
        tuning: A record with at least one look.
    """
    names = list(dict.fromkeys(probe.measure for look in tuning.looks for probe in look.probes))
    panels = len(names) + 1
    with canvas(7.6, _PANEL * panels + 0.5) as (figure, _):
        figure.clear()
        axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        for name, panel in zip(names, axes, strict=False):
            _measure(panel, tuning, name)
        _accuracy(axes[-1], tuning)
        for panel in axes:
            if tuning.answer is not None:
                panel.axvline(tuning.answer, color=FAINT, linewidth=6, alpha=0.25, zorder=0)
            panel.grid(visible=True)
            panel.set_axisbelow(True)
            sns.despine(ax=panel)
        settings = sorted(tuning.settings)
        if settings[0] > 0 and settings[-1] >= 4 * settings[0]:
            axes[-1].set_xscale("log")
        axes[-1].set_xticks(settings, [f"{value:g}" for value in settings])
        axes[-1].xaxis.set_minor_locator(NullLocator())
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        if tuning.settings[0] > tuning.settings[-1]:
            axes[-1].invert_xaxis()  # the strongest noise stands on the left, whatever the knob
        axes[-1].set_xlabel(f"{label(tuning.knob)}: the strongest noise on the left")
        return Drawing(to_svg(figure), _alt(tuning))


def _measure(axes: Axes, tuning: Tuning, name: str) -> None:
    attacks = list(
        dict.fromkeys(
            (probe.attack, probe.title) for look in tuning.looks for probe in look.probes if probe.measure == name
        )
    )
    taken = [probe for look in tuning.looks for probe in look.probes if probe.measure == name]
    limits = {probe.limit for probe in taken}
    for place, (attack, title) in enumerate(attacks):
        color = _COLORS[place % len(_COLORS)]
        points = [(look, probe) for look in tuning.looks if (probe := _of(look, attack, name)) is not None]
        walk = [(look.value, probe) for look, probe in points if look.stage is Stage.WALK]
        if len(limits) > 1:
            own = ", ".join(
                wording.limit(limit, name) for limit in sorted({p.limit for p in taken if p.attack == attack})
            )
            title = f"{title} (limit {own})"
        shift = (place - (len(attacks) - 1) / 2) * 0.012
        _points(axes, walk, color=color, line=LINES[place % len(LINES)], title=title, shift=shift)
        final = [(look.value, probe) for look, probe in points if look.stage is Stage.FINAL]
        _points(axes, final, color=color, line="none", title=None, shift=shift + 0.03, hollow=True)
    for limit in sorted(limits):
        axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(
            f"limit {wording.limit(limit, name)}", (0.995, limit), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=8.5, color=INK,
        )  # fmt: skip
    if name != EPSILON and measure(name).scale is Scale.SHARE:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.set_ylabel(_wrapped("Epsilon that steps stand for" if name == EPSILON else measure(name).title))
    axes.margins(y=0.15)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8, borderaxespad=0.2)


def _points(
    axes: Axes,
    found: list[tuple[float, Probe]],
    *,
    color: str,
    line: object,
    title: str | None,
    shift: float,
    hollow: bool = False,
) -> None:
    there = [(value * (1 + shift), probe.found) for value, probe in sorted(found, key=lambda one: one[0])]
    known = [(value, one.value, one) for value, one in there if one.value is not None]
    if not known:
        return
    axes.plot(
        [value for value, _, _ in known], [middle for _, middle, _ in known],
        color=color, linestyle=line, linewidth=1.5,
        marker="D" if hollow else "o", markerfacecolor="white" if hollow else color, markersize=6 if hollow else 5,
        label=None if title is None else label(title), zorder=4 if hollow else 3,
    )  # fmt: skip
    for value, _, one in known:
        if one.low is not None and one.high is not None:
            axes.plot([value, value], [one.low, one.high], color=color, linewidth=1.3, zorder=2)


def _accuracy(axes: Axes, tuning: Tuning) -> None:
    looks = sorted(tuning.looks, key=lambda look: look.value)
    for stage, marker, title in ((Stage.WALK, "o", "of the walk"), (Stage.FINAL, "D", "on the fresh split")):
        known = [
            (look.value, look.accuracy_holdout.value)
            for look in looks
            if look.stage is stage and look.accuracy_holdout is not None and look.accuracy_holdout.value is not None
        ]
        if not known:
            continue
        final = stage is Stage.FINAL
        axes.plot(
            [value * (1.03 if final else 1) for value, _ in known], [middle for _, middle in known], color=INK,
            linewidth=1.5, marker=marker, markersize=6 if final else 5, markerfacecolor="white" if final else INK,
            label=title,
        )  # fmt: skip
    bare = tuning.accuracy_unprotected
    if bare is not None and bare.value is not None:
        axes.axhline(bare.value, color=COLORS[0], linewidth=1.2, linestyle=(0, (1, 2)), label="without protection")
    if tuning.minimum_accuracy is not None:
        axes.axhline(
            tuning.minimum_accuracy, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), label="least accuracy asked for"
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.set_ylabel("Accuracy, left out")
    axes.margins(y=0.15)
    if axes.get_legend_handles_labels()[0]:  # a setting that could not be trained has no accuracy
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8, borderaxespad=0.2)


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, 26)[:3])


def _of(look: Look, attack: str, name: str) -> Probe | None:
    return next((probe for probe in look.probes if (probe.attack, probe.measure) == (attack, name)), None)


def _alt(tuning: Tuning) -> str:
    said = [f"What was found at each of {len(tuning.walked)} settings of {tuning.knob}, against its limits."]
    for look in tuning.looks:
        within = "keeps" if look.verdict is Status.WITHIN else "does not surely keep"
        fresh = " on the fresh split" if look.stage is Stage.FINAL else ""
        said.append(f"{look.value:g}{fresh} {within} every limit.")
    return " ".join(said)
