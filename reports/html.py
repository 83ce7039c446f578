"""A report as one HTML file that needs nothing else: no script, no network, figures inside."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from reports import figures, markdown, wording
from reports.measures import EPSILON, measure
from reports.reading import attacks_in_order, attacks_left_out, carrying_finding, measures_in_order, worst_first
from reports.record import GalleryItem, GuaranteeRecord, Report, Status
from reports.toml_text import toml_text

_TONES = {
    Status.VIOLATED: "bad",
    Status.LEAKS: "bad",
    Status.ERROR: "warn",
    Status.INCONCLUSIVE: "warn",
    Status.NOT_COMPARABLE: "warn",
    Status.CONSISTENT: "fine",
    Status.WITHIN: "fine",
    Status.INFORMATION: "note",
}

# Beside the word, so that a glance works without colour; no tick anywhere, because no audit says "safe".
_MARKS = {"bad": "\u2715", "warn": "?", "fine": "\u25cb", "note": "i"}

_KINDS = {
    "confidence": "confidence bound",
    "credible": "credible bound (Bayesian)",
    "implied": "implied bound (takes sampling and steps on trust)",
}


def render(report: Report) -> str:
    """Write `report.html`.

    Args:
        report: The record.

    Returns:
        The whole file as text; the same record gives the same bytes. Everything from the record is escaped, and the
        content security policy allows nothing but the one style sheet and images that are in the file.
    """
    css = _read("report.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    finding = carrying_finding(report)
    roc = figures.roc(report)
    has_epsilon = _has_epsilon(report)
    attacks = attacks_in_order(report)
    return _template().render(
        report=report,
        subject=report.subject,
        provenance=report.provenance,
        css=Markup(css),  # ours, not the record's
        policy=policy,
        findings=worst_first(report.findings),
        tally=_tally(report),
        roc_figure=roc,
        band=next((attack.roc for attack in attacks if attack.roc is not None), None),
        epsilon_figure=figures.epsilon(report) if has_epsilon else None,
        lead_is_epsilon=has_epsilon and finding is not None and finding.measure == EPSILON,
        guarantees=[
            ("Claimed", report.epsilons.claimed, "nothing is claimed"),
            ("Proved", report.epsilons.proved, "nothing was computed"),
        ],
        bounds=[
            ("Shown", report.epsilons.shown),
            *([("Implied by steps", report.epsilons.implied)] if report.epsilons.implied else []),
        ],
        ran=[(attack, figures.histogram(attack)) for attack in attacks],
        left_out=attacks_left_out(report),
        plan=toml_text(report.provenance.plan),
        gallery=_by_attack(report.gallery),
        private_gallery=sum(not item.synthetic for item in report.gallery),
        notice=markdown.PRIVATE_DATA_NOTICE,
        dash=wording.DASH,
    )


def _by_attack(gallery: Sequence[GalleryItem]) -> dict[str, list[GalleryItem]]:
    found: dict[str, list[GalleryItem]] = {}
    for item in gallery:
        found.setdefault(item.attack, []).append(item)
    return found


def _read(name: str) -> str:
    return resources.files("reports").joinpath(name).read_text(encoding="utf-8")


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "bound": lambda bound, missing: wording.sentence_case(markdown.bound_in_words(bound, missing=missing)),
        "control": wording.control,
        "count": wording.count,
        "data_uri": _data_uri,
        "exact_percent": wording.exact_percent,
        "finding_limit": wording.finding_limit,
        "found": wording.found,
        "guarantee": _guarantee,
        "guessing": _guessing,
        "in_order": measures_in_order,
        "kind": lambda kind: _KINDS.get(kind.lower(), kind),
        "mark": lambda status: _MARKS[_TONES[status]],
        "meaning": lambda status: wording.STATUS_MEANINGS[status],
        "most_exposed": lambda slices: sorted(slices, key=lambda one: -(one.measures["auc"].value or 0)),
        "measure_title": lambda name: measure(name).title,
        "parts": wording.parts,
        "plain": wording.plain,
        "relation": wording.relation,
        "score": lambda score: wording.amount(score, None),
        "short_digest": wording.short_digest,
        "thousands": lambda number: f"{number:,}",
        "tone": lambda status: _TONES[status],
        "unit": lambda unit: f"one {unit.lower()}" if unit else "unit not stated",
        "word": lambda status: wording.STATUS_WORDS[status],
    }
    return environment.from_string(_read("report.html.jinja"))


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _guarantee(guarantee: GuaranteeRecord | None, missing: str) -> str:
    return wording.sentence_case(markdown.guarantee_in_words(guarantee, missing=missing))


def _guessing(name: str) -> str:
    baseline = measure(name).baseline
    return wording.DASH if baseline is None else wording.limit(baseline, name)


def _has_epsilon(report: Report) -> bool:
    """Whether there is a number to draw; three phrases alone are better read in the table."""
    promises = (report.epsilons.claimed, report.epsilons.proved)
    finite = [promise for promise in promises if promise and promise.epsilon is not None and promise.epsilon < math.inf]
    return bool(finite) or report.epsilons.shown is not None


def _tally(report: Report) -> str:
    counts = Counter(finding.status for finding in worst_first(report.findings))
    if len(report.findings) < 2:
        return ""
    each = ", ".join(f"{wording.STATUS_WORDS[status].lower()} ({number})" for status, number in counts.items())
    return f"All findings: {each}."
