"""The same record gives the same bytes whatever the hash seed, and the gate answers without anything heavy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.records.report import Report

ROOT = Path(__file__).parents[2]

RENDER = """
import sys
from pathlib import Path
from reports.gate.apply_policy import apply_policy, parse_policy, to_junit, to_markdown, to_sarif
from reports.pages.report_page import render
from reports.pages.markdown import summary
from reports.records.report import Report
from reports.records.schema import schema_json

lines = ["[[rules]]", 'measure = "tpr_at_fpr_0.01"', "maximum = 0.03", "[[rules]]", 'measure = "auc"', "maximum = 0.6"]
policy = parse_policy("\\n".join(lines))
texts = [schema_json()]
for path in sys.argv[1:]:
    report = Report.from_json(Path(path).read_text(encoding="utf-8"))
    result = apply_policy(report, policy)
    texts += [report.to_json(), render(report), summary(report)]
    texts += [to_junit(result), to_sarif(result, report), to_markdown(result)]
sys.stdout.buffer.write("\\0".join(texts).encode())
"""

LOADED = """
import sys
import {module}
heavy = {{"numpy", "pandas", "scipy", "matplotlib", "seaborn", "jinja2", "torch", "torchvision", "art", "sklearn"}}
sys.stdout.write(" ".join(sorted(heavy & set(sys.modules))))
"""


def run(code: str, *arguments: str, seed: str = "0") -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_same_records_give_the_same_bytes(leaky: Report, private: Report, tmp_path: Path) -> None:
    paths = []
    for name, report in (("leaky", leaky), ("private", private)):
        path = tmp_path / f"{name}.json"
        path.write_text(report.to_json(), encoding="utf-8")
        paths.append(str(path))
    first, second = (run(RENDER, *paths, seed=seed) for seed in ("1", "4242"))
    assert len(first) > 200_000
    assert first == second


@pytest.mark.parametrize(
    "module", ["reports.gate.apply_policy", "reports.records.report", "reports.exit_codes", "reports.pages.markdown"]
)
def test_the_gate_loads_nothing_heavy(module: str) -> None:
    assert run(LOADED.format(module=module)) == b""


def test_the_figures_load_no_torch() -> None:
    assert {b"torch", b"torchvision", b"art"}.isdisjoint(run(LOADED.format(module="reports.pages.report_page")).split())
