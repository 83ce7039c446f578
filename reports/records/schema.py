"""The JSON Schema of the record, for readers that are not this program.

`python -m reports.records.schema docs/schema/report.schema.json` writes it again after a change of `report.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from reports.records.report import SCHEMA_VERSION, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Says what JSON cannot: a number may be infinite, and is then a string."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["Infinity", "-Infinity"]}]}


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `reports.records.report.Report`.

    Returns:
        The schema; every float is a number or one of the strings "Infinity" and "-Infinity".
    """
    schema = Report.model_json_schema(schema_generator=_Generator)
    major = SCHEMA_VERSION.split(".")[0]
    schema["properties"]["schema_version"]["pattern"] = rf"^{major}\.\d+$"
    return {"$schema": DIALECT, "$id": f"urn:privacy-auditor:report:{SCHEMA_VERSION}", **schema}


def schema_json() -> str:
    """Return the schema as the text of `docs/schema/report.schema.json`: sorted keys, two spaces, a final newline."""
    return json.dumps(report_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_json(), encoding="utf-8")
