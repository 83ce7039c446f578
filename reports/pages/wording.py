"""Numbers and verdicts in words: one wording for HTML, Markdown, figures and the gate."""

import decimal
import json
import math
import re
from typing import Any

from reports.measures import Scale, measure
from reports.records.grounds import Trusted
from reports.records.report import Estimate, Finding, Status

STATUS_WORDS = {
    Status.VIOLATED: "Claim contradicted",
    Status.LEAKS: "Leaks",
    Status.ERROR: "Incomplete",
    Status.INCONCLUSIVE: "Inconclusive",
    Status.NOT_COMPARABLE: "Not comparable",
    Status.CONSISTENT: "No contradiction found",
    Status.WITHIN: "Within the limit",
    Status.INFORMATION: "Not judged",
}

# Never "safe": what an attack did not find, a stronger one might.
STATUS_MEANINGS = {
    Status.VIOLATED: "An attack showed more privacy loss than the guarantee allows. The guarantee does not hold as "
    "stated.",
    Status.LEAKS: "Even the lower end of the confidence interval is above the limit.",
    Status.ERROR: "An attack that was asked for did not finish, so there is no verdict on what it would have found.",
    Status.INCONCLUSIVE: "This audit could not tell. That is not a pass: the leak may be on either side of the limit.",
    Status.NOT_COMPARABLE: "What was shown and what is claimed are stated for different things, so neither can refute "
    "the other.",
    Status.CONSISTENT: "These attacks did not contradict the claim. An attack can refute a claim; it cannot prove one.",
    Status.WITHIN: "Even the upper end of the confidence interval is at or below the limit. That holds for these "
    "attacks; a stronger one may find more.",
    Status.INFORMATION: "No limit was set and no claim was made, so nothing was judged.",
}

DASH = "\u2013"  # stands where a table has nothing to say

_NEIGHBORING = {
    "add_remove": "one record added or removed",
    "replace_one": "one record replaced",
}


def compact(value: float) -> str:
    """Write a number shortly: six digits, `1e-5` rather than `1e-05`, "infinite" for infinity."""
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinity"
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].replace('+', '')}{found[2]}", f"{value:.6g}")


def exact_percent(share: float) -> str:
    """Write a share that somebody chose (a limit, a confidence level) as a percentage, without trailing zeros."""
    return f"{compact(100 * share)}%"


def percent(share: float) -> str:
    """Write a measured share as a percentage with three digits that matter; never rounds to 0% or to 100%."""
    value = 100 * share
    distance = min(abs(value), abs(100 - value))
    if distance == 0 or not 1e-6 < distance < math.inf:
        return f"{compact(value)}%"
    if distance >= 10:
        return f"{value:.1f}%"
    # Near 100% the digits that matter are those of what is missing.
    digits = 2 if value < 50 else 0
    return f"{value:.{max(1, digits - math.floor(math.log10(distance) + 1e-9))}f}%"


def _nats(epsilon: float, rounding: str) -> str:
    if epsilon == 0 or not 1e-15 < abs(epsilon) < 1e15:
        return compact(epsilon)
    small = max(2, 1 - math.floor(math.log10(abs(epsilon))))
    places = 0 if abs(epsilon) >= 1000 else small if abs(epsilon) < 0.1 else 2
    exact = decimal.Decimal(repr(float(epsilon)))
    return f"{exact.quantize(decimal.Decimal(1).scaleb(-places), rounding=rounding):,f}"


def at_least(epsilon: float) -> str:
    """Write a lower bound on epsilon with two decimals (more where it is small), never rounded up."""
    return _nats(epsilon, decimal.ROUND_FLOOR)


def at_most(epsilon: float) -> str:
    """Write a promise or a ceiling with two decimals (more where it is small), never rounded down."""
    return _nats(epsilon, decimal.ROUND_CEILING)


def amount(value: float, name: str | None) -> str:
    """Write a found value of the named measure (None: a plain number)."""
    scale = measure(name).scale if name else None
    if scale is Scale.SHARE:
        return percent(value)
    if scale is Scale.NATS:
        return at_least(value)
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else compact(float(f"{value:.3g}"))


def limit(value: float, name: str | None) -> str:
    """Write a limit on the named measure: as it was chosen, without invented digits."""
    scale = measure(name).scale if name else None
    if scale is Scale.SHARE:
        return exact_percent(value)
    return compact(value)


def interval(estimate: Estimate, name: str | None) -> str:
    """Write the interval alone, "2.60% to 3.70%"; an open end is said in words; empty where there is none."""
    low = None if estimate.low is None or estimate.low == -math.inf else amount(estimate.low, name)
    high = None if estimate.high is None or estimate.high == math.inf else amount(estimate.high, name)
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else ""


def confidence(level: float | None) -> str:
    """Write a confidence level, "95% CI"."""
    return "CI" if level is None else f"{exact_percent(round(level, 5))} CI"


def parts(estimate: Estimate, name: str | None) -> tuple[str, str]:
    """Write a value and, apart from it, its interval: ("3.10%", "95% CI 2.60% to 3.70%").

    Args:
        estimate: An estimate that has a value.
        name: The measure.

    Returns:
        The value, "at least" that where only a lower end is known, and its interval or confidence.
    """
    assert estimate.value is not None  # the caller writes the reason instead
    written = amount(estimate.value, name)
    if estimate.low == estimate.value and estimate.high is None:
        sure = "" if estimate.level is None else f"{exact_percent(round(estimate.level, 5))} confidence"
        return f"at least {written}", sure
    between = interval(estimate, name)
    return written, f"{confidence(estimate.level)} {between}" if between else "no interval"


def found(estimate: Estimate, name: str | None) -> str:
    """Write an estimate with its interval, "3.10% (95% CI 2.60% to 3.70%)", or the reason why there is none."""
    if estimate.value is None:
        return sentence_case(estimate.reason or "not measured")
    written, between = parts(estimate, name)
    return f"{written} ({between})" if between else written


def count(n: int | None, unit: str) -> str:
    """Write how many independent units there are, "4,021 records"; empty where that is not known."""
    if n is None:
        return ""
    return f"{n:,} {unit if n == 1 else _plural(unit)}"


def _plural(unit: str) -> str:
    if unit.endswith("s"):
        return unit
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"


def relation(neighboring: str | None) -> str:
    """Write a neighbouring relation in words, whether the record names it or spells it out."""
    if neighboring is None:
        return "not stated"
    return _NEIGHBORING.get(neighboring.lower(), neighboring)


def scheme(name: str) -> str:
    """Write under which scheme a model was trained, "with dp_sgd" or "without a privacy scheme"."""
    return "without a privacy scheme" if name in ("", "none") else f"with {name}"


def short_digest(digest: str) -> str:
    """Shorten a digest to its first twelve characters after any "sha256:"."""
    prefix, colon, rest = digest.rpartition(":")
    return f"{prefix}{colon}{rest[:12]}…" if len(rest) > 16 else digest


def plain(value: Any) -> str:
    """Write a parameter of any type as short text: yes / no, "not set", numbers shortly, the rest as JSON."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "not a number" if math.isnan(value) else compact(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def sentence_case(text: str) -> str:
    """Raise the first letter."""
    return text[:1].upper() + text[1:]


def finding_limit(finding: Finding) -> str:
    """Write what a finding was held against, or a dash."""
    if finding.limit is None:
        return DASH
    return limit(finding.limit, finding.measure)


def control(finding: Finding) -> str:
    """Write what the same attack found on a model that is known to leak, or why that is missing."""
    if finding.control is not None:
        return found(finding.control, finding.measure)
    return sentence_case(finding.control_reason or "no control")


def trusted(one: Trusted) -> str:
    """Write what was taken on trust, and how far it was tested."""
    return f"{one.what} Tested: {one.tested or 'not at all'}."
