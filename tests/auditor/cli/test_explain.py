"""`auditor explain` knows every code, status, exit code and measure that a report or a shell can show, and no other."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditor.cli.main import app
from reports.exit_codes import PRECEDENCE, ExitCode
from reports.measures import KNOWN_NAMES
from reports.pages.explanations import CODES, EXIT_CODES, PRECEDENCE_NOTE, explain, known_terms
from reports.records.report import Status

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"\bPA\d{3}\b")


def codes_in(*files: Path) -> set[str]:
    return {code for file in files for code in CODE.findall(file.read_text())}


def test_the_codes_explained_are_those_in_use() -> None:
    sources = [file for package in ("auditor", "reports") for file in (ROOT / package).rglob("*.py")]
    explained = ROOT / "reports" / "pages" / "explanations.py"
    command = ROOT / "auditor" / "cli" / "explain.py"
    in_use = codes_in(*(file for file in sources if file not in (explained, command)))
    assert set(CODES) == in_use
    table = re.findall(r"^\| (PA\d{3}) \|", (ROOT / "docs" / "findings.md").read_text(), re.MULTILINE)
    assert set(CODES) == set(table)


def test_every_term_is_explained_with_a_page_that_is_there() -> None:
    terms = known_terms()
    assert {*(status.value for status in Status), *(str(int(code)) for code in ExitCode), *KNOWN_NAMES} < set(terms)
    assert len(set(terms)) == len(terms)
    for term in terms:
        explanation = explain(term)
        assert explanation is not None, term
        assert explanation.meaning
        assert (ROOT / explanation.page).is_file()


def test_exit_codes_are_all_explained_in_their_order_of_precedence() -> None:
    assert set(EXIT_CODES) == set(ExitCode)
    digits = [int(digit) for digit in re.findall(r"\d", PRECEDENCE_NOTE)]
    assert [*digits, 0] == [int(code) for code in PRECEDENCE]


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("pa010", "PA010: Leak against a limit"),
        ("Not-Comparable", "not_comparable: Not comparable"),
        ("4", "Exit code 4: incomplete"),
        ("tpr_at_fpr_0.03", "at most 1. Value under guessing: 0.03."),
        ("similarity", "Value under guessing: not known."),
    ],
)
def test_a_term_is_explained(term: str, said: str) -> None:
    result = CliRunner().invoke(app, ["explain", term])
    assert result.exit_code == 0
    assert said in result.stdout


def test_an_unknown_term_is_a_usage_error_that_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["explain", "inconclusve"])
    assert result.exit_code == 2
    assert "did you mean 'inconclusive'?" in result.stderr
    result = CliRunner().invoke(app, ["explain", "\x1b[31mzzzzzz"])
    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_without_a_term_all_terms_are_listed() -> None:
    result = CliRunner().invoke(app, ["explain"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == known_terms()
