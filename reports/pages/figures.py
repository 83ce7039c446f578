"""The figures of a report, each drawn from the record alone: ROC, score histogram, and the three epsilons."""

import math
import textwrap

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from reports.measures import EPSILON, measure
from reports.pages import wording
from reports.pages.drawing import COLORS, FAINT, INK, LINES, MEMBERS, NONMEMBERS, Drawing, canvas, label, to_svg
from reports.pages.markdown import bound_in_words, guarantee_in_words
from reports.pages.reading_order import attacks_in_order, carrying_finding, worst_first
from reports.records.report import AttackResult, Finding, Report, RocCurve

_SMALLEST_RATE = 1e-6


def roc(report: Report) -> Drawing | None:
    """Draw the ROC of every attack that ran on log-log axes, with the band of the one that carries the verdict.

    Args:
        report: The record.

    Returns:
        The figure, or None where no attack has a ROC.
    """
    attacks = [attack for attack in attacks_in_order(report) if attack.roc is not None and attack.roc.fpr]
    if not attacks:
        return None
    finding = _roc_finding(report, attacks[0])
    at = measure(finding.measure).fpr if finding and finding.measure else None
    smallest = _smallest_rate(report, at)
    with canvas(6.4, 4.7) as (figure, axes):
        axes.plot([smallest, 1], [smallest, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 2)), label="Guessing")
        for place, attack in reversed(list(enumerate(attacks))):
            _roc_line(axes, attack, place, smallest=smallest)
        if at is not None and finding is not None:
            _mark_finding(axes, finding, at, smallest=smallest)
        _percent_axes(axes, smallest)
        axes.set_xlabel("False alarms: share of non-members wrongly named (log scale)")
        axes.set_ylabel("Members found (log scale)")
        axes.grid(visible=True, which="major")
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="lower right", handlelength=3.2, borderaxespad=0.8)
        sns.despine(ax=axes)
        return Drawing(to_svg(figure), _roc_alt(attacks, finding))


def _roc_finding(report: Report, attack: AttackResult) -> Finding | None:
    """Return the finding that the ROC of this attack speaks to: the one with the verdict, else the attack's worst."""
    carrying = carrying_finding(report)
    candidates = [*([carrying] if carrying else []), *worst_first(report.findings)]
    about = [finding for finding in candidates if finding.attack == attack.name and finding.measure in attack.measures]
    return next(iter(about), None)


def _smallest_rate(report: Report, at: float | None) -> float:
    """Return the left and lower end of the axes: the decade below the smallest rate that these non-members resolve."""
    rates = [1 / max(report.subject.nonmembers, 10), *([at] if at else [])]
    return max(_SMALLEST_RATE, min(0.01, 10.0 ** math.floor(math.log10(min(rates)))))


def _roc_line(axes: Axes, attack: AttackResult, place: int, *, smallest: float) -> None:
    curve = attack.roc
    assert curve is not None  # the caller asks for attacks that have one
    fpr = np.clip(curve.fpr, smallest, 1)
    tpr = np.clip(curve.tpr, smallest, 1)
    color = COLORS[place % len(COLORS)]
    if place == 0:
        low, high = np.clip(curve.tpr_low, smallest, 1), np.clip(curve.tpr_high, smallest, 1)
        axes.fill_between(fpr, low, high, step="post", color=color, alpha=0.18, linewidth=0)
    auc = attack.measures.get("auc")
    score = f" (AUC {auc.value:.3f})" if auc and auc.value is not None else ""
    axes.plot(
        fpr,
        tpr,
        drawstyle="steps-post",
        color=color,
        linestyle=LINES[place % len(LINES)],
        linewidth=2.2 if place == 0 else 1.4,
        label=f"{label(attack.title)}{score}",
    )


def _mark_finding(axes: Axes, finding: Finding, at: float, *, smallest: float) -> None:
    """Mark the limit and, at the same false alarms, what was found with its interval; both are named in the legend."""
    estimate = finding.found
    if estimate is not None and estimate.value is not None:
        value = max(estimate.value, smallest)
        low = value if estimate.low is None else min(value, max(estimate.low, smallest))
        high = value if estimate.high is None else max(value, min(estimate.high, 1.0))
        axes.errorbar(
            [at],
            [value],
            yerr=[[value - low], [high - value]],
            fmt="o",
            color=INK,
            markersize=5,
            capsize=4,
            linewidth=1.6,
            zorder=5,
            label=f"Found: {wording.found(estimate, finding.measure)}",
        )
    if finding.limit is not None and finding.limit > 0:
        held = max(finding.limit, smallest)
        written = f"Limit: {wording.limit(finding.limit, finding.measure)} at {wording.exact_percent(at)} false alarms"
        axes.plot([smallest, at], [held, held], color=INK, linewidth=1.2, marker="|", markersize=9, label=written)


def _percent_axes(axes: Axes, smallest: float) -> None:
    decades = [10.0**power for power in range(round(math.log10(smallest)), 1)]
    for axis, scale, limits in (
        (axes.xaxis, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        scale("log")
        limits(smallest, 1.15)
        axis.set_major_locator(FixedLocator(decades))
        axis.set_major_formatter(FuncFormatter(lambda value, _: wording.exact_percent(round(value, 9))))
        axis.set_minor_formatter(NullFormatter())


def _roc_alt(attacks: list[AttackResult], finding: Finding | None) -> str:
    said = ["ROC curves on log-log axes."]
    if finding is not None:
        said.append(f"{wording.STATUS_WORDS[finding.status]}: {finding.sentence}")
    for attack in attacks:
        auc = attack.measures.get("auc")
        if auc is not None and auc.value is not None:
            said.append(f"{attack.title}: AUC {wording.found(auc, 'auc')}; guessing gives 0.5.")
    if len(said) == 1:
        said += [f"{attack.title}: {_at_one_percent(attack.roc)}." for attack in attacks if attack.roc]
    return " ".join(said)


def _at_one_percent(curve: RocCurve) -> str:
    reached = [tpr for fpr, tpr in zip(curve.fpr, curve.tpr, strict=True) if fpr <= 0.01]
    return f"finds {wording.percent(max(reached, default=0.0))} of members at 1% false alarms"


def histogram(attack: AttackResult) -> Drawing | None:
    """Draw the scores of members and non-members of one attack over common bins, each as a share of its group.

    Args:
        attack: An attack that ran.

    Returns:
        The figure, or None where the attack has no histogram or one of the groups is empty.
    """
    counts = attack.histogram
    if counts is None or not counts.members:
        return None
    edges = np.asarray(counts.edges, dtype=float)
    finite = edges[np.isfinite(edges)]
    if len(finite) < 2 or not any(counts.members) or not any(counts.nonmembers):
        return None
    # An open outermost bin is drawn as wide as its neighbours are on average.
    step = (finite[-1] - finite[0]) / (len(finite) - 1)
    edges = np.clip(edges, finite[0] - step, finite[-1] + step)
    middles = (edges[:-1] + edges[1:]) / 2
    with canvas(6.4, 2.9) as (figure, axes):
        groups = (("Non-members", counts.nonmembers, NONMEMBERS), ("Members", counts.members, MEMBERS))
        for name, number, color in groups:
            sns.histplot(
                x=middles,
                weights=np.asarray(number, dtype=float),
                bins=edges.tolist(),
                stat="percent",
                element="step",
                ax=axes,
                color=color,
                alpha=0.25,
                linewidth=1.8,
                linestyle="-" if name == "Members" else (0, (4, 1.5)),
                label=f"{name} ({sum(number):,})",
            )
        axes.set_xlabel("Score (higher: more likely a member)")
        axes.set_ylabel("Share of group")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.legend(loc="best")
        sns.despine(ax=axes)
        return Drawing(to_svg(figure), _histogram_alt(attack))


def _histogram_alt(attack: AttackResult) -> str:
    said = f"Histogram of the scores that {attack.title} gives."
    auc = attack.measures.get("auc")
    if auc is None or auc.value is None:
        return said
    if auc.low is not None and auc.low > 0.5:
        how = "Members score higher than non-members"
    elif auc.high is not None and auc.high < 0.5:
        how = "Members score lower than non-members, so the attack is misled"
    else:
        how = "Members and non-members cannot be told apart"
    return f"{said} {how}: AUC {wording.found(auc, 'auc')}; guessing gives 0.5."


def epsilon(report: Report) -> Drawing:
    """Draw the claimed, the proved, the shown and, if steps were watched, the implied epsilon on one axis.

    What is not a number is said in words.

    Args:
        report: The record.

    Returns:
        The figure.
    """
    claimed, proved, shown = report.epsilons.claimed, report.epsilons.proved, report.epsilons.shown
    words = [
        f"Claimed: {guarantee_in_words(claimed, missing='nothing is claimed')}",
        f"Proved: {guarantee_in_words(proved, missing='nothing was computed')}",
        f"Shown: {bound_in_words(shown, missing=report.epsilons.shown_reason)}",
    ]
    numbers = [guarantee.epsilon if guarantee else None for guarantee in (claimed, proved)]
    numbers.append(shown.lower if shown else None)
    implied = report.epsilons.implied
    if implied is not None:
        words.append(f"Implied by steps: {bound_in_words(implied, missing=None, ceiling=False)}")
        numbers.append(implied.lower)
    last = len(words) - 1
    finite = [number if number is not None and math.isfinite(number) else None for number in numbers]
    ceiling = shown.ceiling if shown and math.isfinite(shown.ceiling) else None
    values = [number for number in (*finite, ceiling) if number is not None]
    largest = max([*values, 1e-3])
    with canvas(6.4, 2.0 + 0.3 * len(words)) as (figure, axes):
        for row, (text, number) in enumerate(zip(words, finite, strict=True)):
            reach = last + 0.28 if row < 2 and (shown is not None or implied is not None) else None
            _epsilon_row(axes, row, text, number=number, promise=row < 2, reach=reach)
        if ceiling is not None:
            axes.plot([ceiling, ceiling], [1.72, 2.28], color=INK, linewidth=1.4)
            axes.annotate("ceiling", (ceiling, 2.32), ha="center", va="top", fontsize=9, color=INK)
        if largest > 30 and min(number for number in (*values, largest) if number > 0) < largest / 20:
            axes.set_xscale("symlog", linthresh=1.0, linscale=0.6)
            axes.set_xlabel("Epsilon (log scale above 1)")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlabel("Epsilon")
        axes.set_xlim(0, largest * 1.12)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.compact(round(value, 9))))
        axes.set_ylim(last + 0.62, -0.62)
        axes.set_yticks([])
        if values:
            axes.grid(visible=True, axis="x")
            axes.set_axisbelow(True)
        else:
            axes.set_xticks([])
            axes.set_xlabel("")
        sns.despine(ax=axes, left=True, bottom=not values)
        return Drawing(to_svg(figure), _epsilon_alt(report, words))


def _epsilon_row(axes: Axes, row: int, text: str, *, number: float | None, promise: bool, reach: float | None) -> None:
    color = NONMEMBERS if promise else MEMBERS
    if number is not None:
        axes.barh(row, number, height=0.3, color=color, alpha=0.85 if promise else 1, hatch=None if promise else "///")
        if reach is not None:
            # A promise is held against what was shown.
            axes.plot([number, number], [1.8, reach], color=color, linewidth=1.2, linestyle=(0, (3, 2)))
        elif not promise:
            axes.plot([number], [row], marker=">", color=color, markersize=9, clip_on=False)
    written = label(text, width=150)
    wrapped = "\n".join(textwrap.wrap(written, 74)[:2])
    place = row - 0.22 if number is not None else row
    axes.annotate(
        wrapped,
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(2, 0),
        textcoords="offset points",
        va="bottom" if number is not None else "center",
        fontsize=10,
        color=INK,
    )


def _epsilon_alt(report: Report, words: list[str]) -> str:
    judged = [finding for finding in worst_first(report.findings) if finding.measure == EPSILON]
    verdict = f" {wording.STATUS_WORDS[judged[0].status]}: {judged[0].sentence}" if judged else ""
    return f"Epsilon, {len(words)} ways. {'. '.join(words)}.{verdict}"
