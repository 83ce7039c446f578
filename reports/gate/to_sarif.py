"""A gate's decision as SARIF 2.1.0, for code scanning."""

import hashlib
import json
from typing import Any

from reports.gate.gate_result import GateResult, Outcome, Row
from reports.measures import measure
from reports.records.report import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_HELP = {
    "claims": "No attack may show more privacy loss than the model's guarantee allows.",
    "attacks": "Every required attack has to run to its end; an attack that did not run finds nothing.",
    "grounds": "Figures rest on who was a member; where that is in doubt, none of them passes.",
}


def to_sarif(result: GateResult, report: Report, *, artifact: str = "report.json") -> str:
    """Write the checks that did not pass as SARIF results; a check that passes is a rule without a result.

    Args:
        result: The decision of `reports.gate.apply_policy.apply_policy`.
        report: The report that was judged.
        artifact: Path or URI of the report as a reader of the log knows it, relative to the repository; it becomes
            the location of every result, without which code scanning shows none.

    Returns:
        The JSON text; the same result and report give the same bytes.
    """
    ids = sorted({row.rule for row in result.rows})
    shown = [row for row in result.rows if row.outcome is not Outcome.PASS]
    run = {
        "tool": {
            "driver": {
                "name": "privacy-auditor",
                "rules": [_rule(name, next(row for row in result.rows if row.rule == name)) for name in ids],
            }
        },
        "automationDetails": {"id": "privacy-gate/"},
        "results": [_result(row, ids.index(row.rule), artifact=artifact) for row in shown],
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": int(result.exit_code),
                "exitCodeDescription": result.sentence,
            }
        ],
        "properties": {
            "modelDigest": report.subject.model_digest,
            "dataDigest": report.subject.data_digest,
            "planDigest": report.provenance.plan_digest,
            "verdict": report.verdict.value,
        },
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(name: str, row: Row) -> dict[str, Any]:
    about = _HELP.get(name) or (measure(row.measure).meaning if row.measure else "") or "A limit of the privacy policy."
    title = measure(row.measure).title if row.measure and name not in _HELP else name.capitalize()
    return {
        "id": name,
        "shortDescription": {"text": title},
        "fullDescription": {"text": about},
        "help": {"text": about},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["privacy", "security"]},
    }


def _result(row: Row, index: int, *, artifact: str) -> dict[str, Any]:
    level = "warning" if row.outcome is Outcome.INCONCLUSIVE else "error"
    place = {"physicalLocation": {"artifactLocation": {"uri": artifact}, "region": {"startLine": 1}}}
    key = hashlib.sha256(f"{row.rule}\0{row.attack or ''}\0{row.measure or ''}".encode()).hexdigest()
    return {
        "ruleId": row.rule,
        "ruleIndex": index,
        "kind": "fail",  # any other kind may not carry a level (SARIF 2.1.0, 3.27.10)
        "level": "note" if row.tolerated else level,
        "message": {"text": row.sentence},
        "locations": [place],
        # So that the same check is one alert over time, whatever the numbers in its sentence.
        "partialFingerprints": {"privacyCheck/v1": key},
        "properties": {"outcome": row.outcome.value, "limit": row.limit, "exitCode": int(row.exit_code)},
    }
