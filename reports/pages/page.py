"""Pages that need nothing else: one file, no script, no network, everything from a record escaped."""

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from reports.measures import measure
from reports.pages import markdown, wording
from reports.pages.reading_order import measures_in_order
from reports.records.report import GuaranteeRecord, Slice, Status
from reports.untrusted import writable

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


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package.

    Args:
        template: Its file name.
        **values: What it shows, beside `css` and `policy`, which it gets from here.

    Returns:
        The page; the content security policy allows nothing but the one style sheet and images that are in the file.
    """
    css = _read("report.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # The style sheet is ours, not the record's.
    return _environment().from_string(_read(template)).render(css=Markup(css), policy=policy, **values)


def _read(name: str) -> str:
    return resources.files("reports.pages").joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_writable
    )
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
        "most_exposed": _most_exposed,
        "measure_title": lambda name: measure(name).title,
        "parts": wording.parts,
        "plain": wording.plain,
        "relation": wording.relation,
        "similarity": lambda found: wording.amount(found, None),
        "short_digest": wording.short_digest,
        "thousands": lambda number: f"{number:,}",
        "tone": lambda status: _TONES[status],
        "trusted": wording.trusted,
        "unit": lambda unit: f"one {unit.lower()}" if unit else "unit not stated",
        "word": lambda status: wording.STATUS_WORDS[status],
    }
    return environment


def _writable(value: Any) -> Any:
    """Keep control characters of the record out of the page; what is ours is markup and has none."""
    return writable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _most_exposed(slices: Iterable[Slice]) -> list[Slice]:
    there = [one for one in slices if "auc" in one.measures]
    return sorted(there, key=lambda one: -(one.measures["auc"].value or 0))


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _guarantee(guarantee: GuaranteeRecord | None, missing: str) -> str:
    return wording.sentence_case(markdown.guarantee_in_words(guarantee, missing=missing))


def _guessing(name: str) -> str:
    baseline = measure(name).baseline
    return wording.DASH if baseline is None else wording.limit(baseline, name)
