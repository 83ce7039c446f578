"""A tuning as a page and as Markdown: the answer, the trace, which probe decided it, and what is not covered."""

from reports.exit_codes import ExitCode
from reports.measures import EPSILON, measure
from reports.pages import markdown, tuning_chart, wording
from reports.pages.page import fill
from reports.pages.toml_text import toml_text
from reports.records.tuning import EXIT_CODES, Look, Probe, Stage, Tuning

_TONES = {ExitCode.PASS: "fine", ExitCode.EXCEEDED: "bad"}
_MODES = {
    "fixed_sequence": "walked from the strongest noise on, stopping at the first setting that does not pass",
    "bisection": "halved, each look judged at its share of the error",
    "private_selection": "tried at random a random number of times, each try scored with noise and only the best told",
}


def render_tuning(tuning: Tuning) -> str:
    """Write `tuning.html`: a pure function of the record.

    Args:
        tuning: The record.
    """
    return fill(
        "tuning.html.jinja",
        tuning=tuning,
        tone=_TONES.get(EXIT_CODES[tuning.outcome], "warn"),
        figure=tuning_chart.trace(tuning) if tuning.looks else None,
        how=how(tuning),
        looks=[
            (look, look_title(tuning.knob, look), [_cells(probe) for probe in look.probes]) for look in tuning.looks
        ],
        sights=[(sight, limit_in_words(sight.measure, sight.limit)) for sight in tuning.sights],
        plan=toml_text(tuning.plan),
        notice=markdown.PRIVATE_DATA_NOTICE,
        dash=wording.DASH,
    )


def how(tuning: Tuning) -> str:
    """Return in a sentence how the answer was looked for."""
    unit = "one model each"
    if tuning.about == "scheme":
        rare = 1 - (1 - tuning.confidence) ** (1 / tuning.models)
        unit = f"{tuning.models} models each, the model being the unit: a leak of fewer than {rare:.0%} may be missed"
    left_out = (
        f"; {', '.join(f'{value:g}' for value in tuning.above_ceiling)} left out, above the epsilon ceiling of "
        f"{tuning.epsilon_ceiling:g}"
        if tuning.above_ceiling and tuning.epsilon_ceiling is not None
        else ""
    )
    settings = ", ".join(f"{value:g}" for value in tuning.settings)
    return (
        f"{tuning.knob} of {tuning.scheme} over {settings}{left_out}: {_MODES[tuning.mode]}; {unit}. A setting passes "
        f"if the upper {wording.exact_percent(tuning.confidence)} limit of every probe is within its limit."
    )


def look_title(knob: str, look: Look) -> str:
    """Return what a look was at."""
    return f"{knob} {look.value:g}" + (", fresh split and seed" if look.stage is Stage.FINAL else "")


def look_in_words(knob: str, look: Look) -> str:
    """Return a look as one line."""
    return f"{look_title(knob, look)}: {wording.STATUS_WORDS[look.verdict].lower()}; {look.sentence}"


def limit_in_words(name: str, limit: float) -> str:
    """Return a limit with what it is on."""
    return f"{measure(name).title}, at most {wording.limit(limit, name)}"


def _cells(probe: Probe) -> tuple[Probe, str, str]:
    title = "Epsilon that steps stand for" if probe.measure == EPSILON else measure(probe.measure).title
    return probe, title, wording.limit(probe.limit, probe.measure)


def tuning_markdown(tuning: Tuning) -> str:
    """Write the answer, the trace and the price as short Markdown."""
    head = ["Setting", "Verdict", "Bound by", "Figure", "Limit", "Epsilon proved", "Accuracy"]
    rows = []
    for look in tuning.looks:
        bound = look.bound
        rows.append(
            [
                look_title(tuning.knob, look),
                wording.STATUS_WORDS[look.verdict],
                "" if bound is None else bound.title,
                "" if bound is None else wording.found(bound.found, bound.measure),
                "" if bound is None else wording.limit(bound.limit, bound.measure),
                "unaccounted" if look.epsilon is None else wording.at_most(look.epsilon),
                "" if look.accuracy_holdout is None else wording.found(look.accuracy_holdout, "accuracy"),
            ]
        )
    lines = [f"# {markdown.escape(tuning.title)}", "", f"**{markdown.escape(tuning.headline)}**", "", how(tuning), ""]
    lines += [*markdown.table(head, rows), ""] if rows else []
    for title, said in (("What would resolve it", tuning.remedies), ("What it costs", tuning.price)):
        lines += [f"## {title}", "", *(f"- {markdown.escape(sentence)}" for sentence in said), ""] if said else []
    return "\n".join([*lines, markdown.PRIVATE_DATA_NOTICE, ""])
