"""The record: infinities survive, NaN never enters, malformed records are refused in words, the schema is current."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from reports.errors import ReportError
from reports.records.report import Estimate, Histogram, Report, RocCurve
from reports.records.schema import report_schema, schema_json

COMMITTED = Path(__file__).parents[2] / "docs" / "schema" / "report.schema.json"


def test_infinity_survives_the_round_trip(leaky: Report) -> None:
    text = leaky.to_json()
    assert json.loads(text)["epsilons"]["proved"]["epsilon"] == "Infinity"
    back = Report.from_json(text)
    assert back.epsilons.proved is not None
    assert back.epsilons.proved.epsilon == math.inf
    assert back == leaky
    assert back.to_json() == text


def test_json_holds_no_bare_infinity_or_nan(leaky: Report, change: Callable[..., Report]) -> None:
    report = change(leaky, "subject/scheme_parameters", {"largest": math.inf, "smallest": -math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(report.to_json(), parse_constant=refuse)


@pytest.mark.parametrize("field", ["value", "low", "high", "level"])
def test_nan_is_refused_in_an_estimate(field: str) -> None:
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, field: math.nan}
    with pytest.raises(ValidationError, match=r"NaN|less than or equal to 1"):
        Estimate(method="m", **numbers)


def test_nan_is_refused_everywhere_else(private: Report, change: Callable[..., Report]) -> None:
    for path in (
        "epsilons/shown/lower",
        "findings/0/limit",
        "attacks/0/roc/tpr/3",
        "attacks/0/exposed/0/false_alarms_at_most",
    ):
        with pytest.raises(ValidationError, match=r"NaN|less than or equal to 1"):
            change(private, path, math.nan)


def test_an_estimate_needs_a_number_or_a_reason() -> None:
    with pytest.raises(ValidationError, match="needs a reason"):
        Estimate(method="m")


def test_a_value_outside_its_interval_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside its interval"):
        Estimate(value=0.7, low=0.1, high=0.5, method="m")


def test_curves_and_histograms_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValidationError, match="lengths"):
        RocCurve(fpr=[0, 1], tpr=[0, 1], tpr_low=[0, 1], tpr_high=[1], level=0.95, method="m")
    with pytest.raises(ValidationError, match="must not fall"):
        RocCurve(fpr=[1, 0], tpr=[0, 1], tpr_low=[0, 1], tpr_high=[1, 1], level=0.95, method="m")
    with pytest.raises(ValidationError, match="one edge more"):
        Histogram(edges=[0, 1], members=[1, 2], nonmembers=[1, 2])
    with pytest.raises(ValidationError, match="must rise"):
        Histogram(edges=[0, 0], members=[1], nonmembers=[1])


def test_text_that_is_not_json_is_refused_with_a_remedy() -> None:
    with pytest.raises(ReportError, match=r"report\.json.*not JSON"):
        Report.from_json("{")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"schema_version": 1}', '{"schema_version": "1.4"}'])
def test_another_schema_version_is_refused(text: str) -> None:
    with pytest.raises(ReportError, match="schema version"):
        Report.from_json(text)


def test_a_malformed_record_names_the_place(leaky: Report) -> None:
    data = json.loads(leaky.to_json())
    data["findings"][1]["status"] = "fine"
    with pytest.raises(ReportError, match=r"findings\.1\.status.*give a report\.json"):
        Report.from_json(json.dumps(data))
    data = json.loads(leaky.to_json())
    data["subject"]["hostname"] = "x"
    with pytest.raises(ReportError, match=r"subject\.hostname"):
        Report.from_json(json.dumps(data))


def test_committed_schema_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == schema_json(), (
        "reports/records/report.py changed: run `python -m reports.records.schema docs/schema/report.schema.json`"
    )


@pytest.mark.parametrize("name", ["leaky", "private", "incomplete", "inconclusive"])
def test_serialised_reports_follow_the_schema(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(name)
    jsonschema.validate(json.loads(report.to_json()), report_schema(), jsonschema.Draft202012Validator)


def test_the_schema_allows_infinity_and_nothing_else_in_words(private: Report) -> None:
    schema = report_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    def valid_with(epsilon: Any) -> bool:
        data = json.loads(private.to_json())
        data["epsilons"]["proved"]["epsilon"] = epsilon
        return bool(validator.is_valid(data))

    assert valid_with(1.5)
    assert valid_with("Infinity")
    assert not valid_with("NaN")
    assert not valid_with("large")
