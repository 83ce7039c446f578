"""Hostile reports and policies: what is refused is refused with a ReportError, and what loads can be shown."""

import copy
import json
import math
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hostile import alike, mutations, replaced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_samples import leaky_data, private_data

from reports.errors import ReportError
from reports.gate.apply_policy import apply_policy, to_junit, to_markdown, to_sarif
from reports.gate.policy import Policy, parse_policy
from reports.pages.markdown import summary
from reports.pages.report_page import render
from reports.pages.toml_text import toml_text
from reports.records.report import Report

POLICY = """
required_attacks = ["lira"]
[[rules]]
id = "members found"
measure = "tpr_at_fpr_0.01"
maximum = 0.03
[[rules]]
measure = "epsilon"
maximum = "claims"
[[rules]]
measure = "auc"
maximum_increase = 0.02
attack = "lira"
"""
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 5e-324, 1e-300, 1e300, -1e300, 2**63 - 1, -(2**63), 2**63, "Infinity", "-Infinity")
TEXTS = ("", "\x00", "\x1b[31m", "\ud800", "\u202e", "<script>alert(1)</script>", "{{ 7 * 7 }}", "$\\frac{1}{0}$")
WORDS = ("é" * 5000, "violated", "ran", "failed", "implied", "ADD_REMOVE", "lira", "epsilon", "tpr_at_fpr_1e-300")
OTHERS = (None, True, [], {}, [[]], {"": ""}, {"\n": [None]}, [0, -1, 1e300], ["Infinity"], math.nan, math.inf)
NASTY = st.one_of(st.sampled_from(NUMBERS), st.sampled_from((*TEXTS, *WORDS)), st.sampled_from(OTHERS), st.floats(0, 1))
QUICK = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def small(data: dict[str, Any]) -> dict[str, Any]:
    """A report with one attack and short curves: drawn in a moment."""
    found = copy.deepcopy(data)
    attack = next(one for one in found["attacks"] if one["name"] == "lira")
    attack["roc"] = {name: [0.0, 0.1, 1.0] for name in ("fpr", "tpr", "tpr_low", "tpr_high")}
    attack["roc"] |= {"level": 0.95, "method": "bands"}
    attack["histogram"] = {"edges": [0.0, 1.0, 2.5], "members": [3, 4], "nonmembers": [5, 0]}
    attack["queries"] = [{"queries": 10, "fidelity": attack["measures"]["auc"]}]
    attack["slices"] = [{"by": "class", "value": "1", "members": 10, "nonmembers": 11, "measures": attack["measures"]}]
    shown = {"png": "aGVsbG8=", "fields": {}}
    item = {"attack": "lira", "synthetic": True, "measure": "ssim", "reconstruction": shown, "training": shown}
    found["gallery"] = [{**item, "similarity_training": 0.5}]
    found["attacks"] = [attack, found["attacks"][-1]]
    return json.loads(Report.model_validate(found).to_json())


SMALL = (small(leaky_data()), small(private_data()))
POLICIES = parse_policy(POLICY)


class Tags(HTMLParser):
    """Refuses what no page of ours holds."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        assert not any(name.startswith("on") for name, _ in attrs)


def loaded(text: bytes) -> Report | None:
    try:
        return Report.from_json(text)
    except ReportError as error:
        sensible(error)
        return None


def sensible(error: Exception) -> None:
    """A message is one short line that a terminal shows as it is."""
    assert len(str(error)) < 2500
    assert str(error).isprintable()


def written(found: Any) -> bytes:
    return json.dumps(found).encode()


def check_gate(report: Report, policy: Policy) -> None:
    result = apply_policy(report, policy, report)
    ElementTree.fromstring(to_junit(result))
    json.loads(to_sarif(result, report))
    assert "\x1b" not in to_markdown(result)


def check_pages(report: Report) -> None:
    page = render(report)
    Tags().feed(page)
    assert not set("\x00\x1b\x9b") & set(page + summary(report))
    (page + summary(report) + report.to_json()).encode()
    assert Report.from_json(report.to_json()) == report


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], count: int) -> None:
    settings(max_examples=count, **QUICK)(given(strategy)(check))()


def bytes_of_a_report(text: bytes) -> None:
    report = loaded(text)
    if report is not None:
        check_gate(report, POLICIES)


def values_of_a_report(found: Any) -> None:
    bytes_of_a_report(written(found))


def pages_of_a_report(found: Any) -> None:
    report = loaded(written(found))
    if report is not None:
        check_pages(report)


def a_policy(text: str | bytes) -> None:
    try:
        policy = parse_policy(text)
    except ReportError as error:
        sensible(error)
        return
    check_gate(Report.model_validate(SMALL[0]), policy)


def values_of_a_policy(found: Any) -> None:
    try:
        text = toml_text(found)
    except (TypeError, AttributeError, UnicodeError):
        return  # what the writer cannot write, nobody reads
    a_policy(text)


def similar(found: Any) -> st.SearchStrategy[Any]:
    return alike(found, texts=st.sampled_from((*TEXTS, *WORDS)), numbers=st.sampled_from(NUMBERS) | st.floats(0, 1))


REPORTS = st.sampled_from(SMALL)
CASES = {
    "bytes of a report": (REPORTS.flatmap(lambda one: mutations(written(one))), bytes_of_a_report, 250),
    "values of a report, gated": (REPORTS.flatmap(lambda one: replaced(one, NASTY)), values_of_a_report, 400),
    "values of a report, shown": (REPORTS.flatmap(lambda one: replaced(one, NASTY)), pages_of_a_report, 50),
    "a report like it, gated": (REPORTS.flatmap(similar), values_of_a_report, 340),
    "a report like it, shown": (REPORTS.flatmap(similar), pages_of_a_report, 60),
    "bytes of a policy": (mutations(POLICY.encode()), a_policy, 150),
    "values of a policy": (replaced(tomllib.loads(POLICY), NASTY), values_of_a_policy, 150),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_input_is_refused_or_shown(case: str) -> None:
    strategy, check, count = CASES[case]
    fuzz(strategy, check, count)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_hostile_input_at_length(case: str) -> None:
    strategy, check, count = CASES[case]
    fuzz(strategy, check, 10 * count)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"findings": [{}] * 1_000_000}, "holds too much"),
        ({"findings": [{}] * 20_000}, "at most 5000 items"),
        ({"findings": [{}] * 20}, "and 75 more problems"),
        ({"attacks": SMALL[0]["attacks"] * 150}, "at most 200 items"),
        ({"verdict": "x" * 10_000_000}, "verdict"),
        ({"x" * 10_000: 1}, "a key has 10,000 characters"),
        ({"headline": "\ud800"}, "half a character"),
        ({"subject": SMALL[0]["subject"] | {"members": 10**30}}, "64 bits"),
        ({"headline": math.nan}, "NaN"),
    ],
)
def test_what_is_too_much_is_refused_in_a_short_sentence(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ReportError, match=said) as found:
        Report.from_json(written(SMALL[0] | change))
    sensible(found.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, '{"a":' * 2_000 + "1" + "}" * 2_000, b"\xff\xfe{}"])
def test_what_breaks_parsers_is_refused(text: str | bytes) -> None:
    with pytest.raises(ReportError) as found:
        Report.from_json(text)
    sensible(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("a = " + "9" * 5_000, "thousands of digits"),
        ("when = 1979-05-27T07:32:00Z", "date or time"),
        ("maximum = nan", "nan"),
        ('"a\\u001b" = 1', "control character"),
        ("a." * 6_000 + "a = 1", "dots"),
        ("x = 1\n" * 200_000, "larger than 1,000,000 bytes"),
        ("[rules]\n" + "k" * 400_000 + " = 1", "400,000 characters"),
    ],
)
def test_a_hostile_policy_is_refused_in_a_short_sentence(text: str, said: str) -> None:
    with pytest.raises(ReportError, match=said) as found:
        parse_policy(text)
    sensible(found.value)


def test_only_files_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    large = tmp_path / "report.json"
    with large.open("wb") as file:
        file.truncate(51_000_000)
    with pytest.raises(ReportError, match=r"51,000,000 bytes; at most 50,000,000"):
        Report.read(large)
    with pytest.raises(ReportError, match="folder"):
        Report.read(tmp_path)
    with pytest.raises(ReportError, match="device"):
        Report.read(Path("/dev/zero"))
