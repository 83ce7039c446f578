"""What the gate writes for CI: JUnit, SARIF and Markdown that say the same as the exit code."""

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from reports.gate.apply_policy import apply_policy, parse_policy, to_junit, to_markdown, to_sarif
from reports.gate.gate_result import GateResult
from reports.pages.markdown import escape, summary
from reports.records.report import Report

POLICY = """
required_attacks = ["lira"]
[[rules]]
id = "members-found"
measure = "tpr_at_fpr_0.01"
maximum = 0.03
"""
NASTY = "<b>&\"'|`*_[x](http://example.org) @someone #1\x00\x1b\ud7ff\ufffe\n| --- |"


@pytest.fixture
def failing(leaky: Report) -> GateResult:
    return apply_policy(leaky, parse_policy(POLICY))


@pytest.fixture
def nasty(leaky: Report, change: Callable[..., Report]) -> Report:
    return change(change(leaky, "attacks/2/title", NASTY), "attacks/2/name", NASTY)


def suite(result: GateResult) -> ElementTree.Element:
    root = ElementTree.fromstring(to_junit(result))
    assert root.tag == "testsuites"
    found = root.find("testsuite")
    assert found is not None
    return found


def test_junit_counts_and_classes(failing: GateResult) -> None:
    tests = suite(failing)
    cases = tests.findall("testcase")
    assert (
        len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases) == int(tests.get("tests", 0))
    )
    failures = [case for case in cases if case.find("failure") is not None]
    assert len(failures) == int(tests.get("failures", 0)) == 3
    first = failures[0].find("failure")
    assert first is not None
    assert "15.2% (95% CI 12.2% to 18.3%)" in first.get("message", "")
    assert "maximum of 3%" in first.get("message", "")
    passed = [case for case in cases if not {child.tag for child in case} & {"failure", "error", "skipped"}]
    assert [case.get("name") for case in passed] == ["attacks [lira]", "claims"][: len(passed)]


def test_junit_is_not_green_where_the_gate_is_inconclusive(inconclusive: Report) -> None:
    tests = suite(apply_policy(inconclusive, parse_policy(POLICY.replace("0.03", "0.02"))))
    assert int(tests.get("errors", 0)) >= 1
    assert tests.get("skipped") == "0"
    lenient = suite(
        apply_policy(inconclusive, parse_policy("allow_inconclusive = true\n" + POLICY.replace("0.03", "0.02")))
    )
    assert lenient.get("errors") == "0"
    assert int(lenient.get("skipped", 0)) >= 1


def sarif(result: GateResult, report: Report) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(to_sarif(result, report))
    return log


def test_sarif_has_the_structure_that_code_scanning_reads(failing: GateResult, leaky: Report) -> None:
    log = sarif(failing, leaky)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "privacy-auditor"
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]
    assert len(run["results"]) == 3
    fingerprints = set()
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"] == "members-found"
        assert result["level"] == "error"
        assert result["kind"] == "fail"
        assert result["message"]["text"]
        location = result["locations"][0]["physicalLocation"]
        assert location["artifactLocation"]["uri"] == "report.json"
        assert location["region"]["startLine"] >= 1
        fingerprints.add(result["partialFingerprints"]["privacyCheck/v1"])
    assert len(fingerprints) == 3
    assert run["invocations"][0]["exitCode"] == 1


@pytest.mark.parametrize(("top", "level"), [("", "warning"), ("allow_inconclusive = true\n", "note")])
def test_sarif_of_an_inconclusive_check(inconclusive: Report, top: str, level: str) -> None:
    result = apply_policy(inconclusive, parse_policy(top + POLICY.replace("0.03", "0.02")))
    results = sarif(result, inconclusive)["runs"][0]["results"]
    assert {found["level"] for found in results} == {level}
    # SARIF 2.1.0, 3.27.10: only a result of kind "fail" has a level.
    assert {found["kind"] for found in results} == {"fail"}


def test_sarif_of_a_pass_has_rules_and_no_results(private: Report) -> None:
    run = sarif(apply_policy(private, parse_policy(POLICY)), private)["runs"][0]
    assert run["results"] == []
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["attacks", "claims", "members-found"]


def test_fingerprints_do_not_change_with_the_numbers(leaky: Report, change: Callable[..., Report]) -> None:
    other = change(leaky, "attacks/2/measures/tpr_at_fpr_0.01/value", 0.16)

    def prints(report: Report) -> list[str]:
        results = sarif(apply_policy(report, parse_policy(POLICY)), report)["runs"][0]["results"]
        return [result["partialFingerprints"]["privacyCheck/v1"] for result in results]

    assert prints(leaky) == prints(other)


def test_nothing_from_the_record_breaks_a_format(nasty: Report) -> None:
    result = apply_policy(nasty, parse_policy(POLICY))
    assert len(suite(result).findall("testcase")) == len(result.rows)
    assert sarif(result, nasty)["runs"][0]["results"]
    for text in (to_markdown(result), summary(nasty)):
        tables = [line for line in text.splitlines() if line.startswith("|")]
        unescaped = {line.replace("\\|", "").count("|") for line in tables}
        assert len(unescaped) == 1, tables
        assert "<b>" not in text
        assert "@someone" not in text
        assert "\x00" not in text


def test_escape() -> None:
    assert escape("a|b\nc") == "a\\|b c"
    assert escape("<img>") == "\\<img\\>"
    assert escape("3.1% (95% CI 2 to 4), limit 1e-5") == "3.1% (95% CI 2 to 4), limit 1e-5"


def test_markdown_states_the_decision_first(failing: GateResult) -> None:
    lines = to_markdown(failing).splitlines()
    assert lines[0] == "## Privacy gate"
    assert lines[2].startswith("**Fail (3 of 4 checks; the first is named): LiRA")
    assert lines[6].startswith("| fail | members-found \\[lira\\] | 3% | 15.2% (95% CI 12.2% to 18.3%)")


def test_summary_is_short_and_complete(leaky: Report, incomplete: Report) -> None:
    text = summary(leaky)
    assert text.startswith("## Privacy audit: Leaks\n\n**LiRA finds 15.2%")
    assert len(text.splitlines()) < 40
    assert text.index("PA001") < text.index("PA002")
    for wanted in ("What this audit does not show", "Proved: infinite", "private training records"):
        assert wanted in text
    assert "killed: out of memory" in summary(incomplete)
