"""What a tuning came to, in words with its numbers."""

from reports.measures import measure
from reports.pages import wording
from reports.records.report import Status
from reports.records.tuning import Look, Outcome, Probe, Tuning

EPSILON = "epsilon"


def headline(record: Tuning, blind: str | None) -> str:
    """Return the answer in one or two sentences.

    Args:
        record: All but the headline.
        blind: Why there was no walk, or None.
    """
    knob, final, walked = record.knob, record.final, record.walked
    selection = record.selection
    match record.outcome:
        case Outcome.BLIND:
            return f"No setting was judged: {blind}."
        case Outcome.FOUND | Outcome.ALL:
            assert final is not None
            unit = "the final model" if record.about == "model" else f"{final.models} fresh models"
            kept = f"{unit} on a fresh split kept every limit"
            if final.bound_by is not None:
                kept += f", most narrowly that of {_figure(final.bound)}"
            if selection is not None:
                return f"{knob} {record.answer:g} was chosen privately, and {kept}."
            said = f"{knob} {record.answer:g} is the least noise found: {kept}"
            if record.outcome is Outcome.ALL:
                return f"Even the least noise in the range passes. {said}; less than that was not tried."
            weaker = (look for look in walked if _weaker(record, look) and look.verdict is not Status.WITHIN)
            failed = next(weaker, None)
            return f"{said}." if failed is None else f"{said}. {knob} {failed.value:g} does not pass: {_why(failed)}."
        case Outcome.NONE:
            return f"No setting passes, not even the strongest noise, {knob} {walked[-1].value:g}: {_why(walked[-1])}."
        case Outcome.UNDECIDED:
            return _undecided(record)
        case Outcome.UNCONFIRMED:
            assert final is not None
            before = "The walk ended at" if selection is None else "The private selection chose"
            return (
                f"{before} {knob} {final.value:g}, and a fresh split did not confirm it: {final.sentence} "
                "No second choice is made."
            )
        case Outcome.TOO_INACCURATE:
            assert final is not None
            return (
                f"{knob} {final.value:g} is the least noise that keeps every limit, and its accuracy is surely below "
                f"{record.minimum_accuracy:g}: {_accuracy(final)}."
            )
        case Outcome.FAILED:
            return f"There is no answer: {record.looks[-1].sentence}"
    raise AssertionError(record.outcome)


def _undecided(record: Tuning) -> str:
    knob, final, selection = record.knob, record.final, record.selection
    if final is not None:
        return (
            f"{knob} {final.value:g} keeps every limit, but whether its accuracy is at least "
            f"{record.minimum_accuracy:g} is undecided: {_accuracy(final)}."
        )
    if selection is not None:
        return (
            f"No setting was chosen: the best of the tries, at {knob} {selection.value:g}, has a noisy score of "
            f"{selection.score:.3g}, above its limit of {selection.limit:g}."
        )
    last = record.walked[-1]
    return f"No setting surely passes; {knob} {last.value:g} is undecided: {_why(last)}."


def remedies(record: Tuning, blind: str | None) -> list[str]:
    """Return what would resolve a tuning that came to no answer, one sentence each."""
    said: list[str] = []
    if blind is not None:
        said += [sight.sentence for sight in record.sights if not sight.sees]
    elif record.outcome in (Outcome.UNDECIDED, Outcome.UNCONFIRMED) and record.looks:
        said += [
            probe.sentence for probe in record.looks[-1].probes if probe.counts and probe.status is Status.INCONCLUSIVE
        ]
    if record.outcome in (Outcome.UNDECIDED, Outcome.UNCONFIRMED, Outcome.NONE):
        said.append(
            "More noise than the range holds, more records, or a wider limit can change this; another seed must not."
        )
    return list(dict.fromkeys(said))


def _weaker(record: Tuning, look: Look) -> bool:
    assert record.answer is not None
    return record.settings.index(look.value) > record.settings.index(record.answer)


def _why(look: Look) -> str:
    probe = look.bound
    if probe is None:
        return look.sentence.rstrip(".")
    doubted = probe.status is Status.INCONCLUSIVE and probe.found.high is not None and probe.found.high <= probe.limit
    return probe.sentence.rstrip(".") if doubted else _figure(probe)


def _figure(probe: Probe | None) -> str:
    if probe is None:
        return ""
    what = "epsilon" if probe.measure == EPSILON else measure(probe.measure).title
    return (
        f"{probe.title} ({what[:1].lower() + what[1:]}): {wording.found(probe.found, probe.measure)}, the limit being "
        f"{wording.limit(probe.limit, probe.measure)}"
    )


def _accuracy(look: Look) -> str:
    return "it was not measured" if look.accuracy_holdout is None else wording.found(look.accuracy_holdout, "accuracy")
