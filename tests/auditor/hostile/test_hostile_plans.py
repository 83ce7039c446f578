"""Hostile plans of every command: whatever they hold, a PlanError in one short sentence is all that comes out."""

import math
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import mutations, replaced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.canaries.request import read_request
from auditor.compare.plan import compare_plan
from auditor.plan.plan import load_plan, parse_plan, parse_table
from auditor.plan.resolve import resolve_architecture, resolve_attacks, resolve_defense, resolve_recipe
from auditor.targets.trained_here import TrainedHere
from auditor.tuning.plan import tune_plan
from auditor.verdicts.findings import check_limits
from defenses.errors import PlanError
from reports.pages.toml_text import toml_text
from reports.parsing import parse_toml

BASE = """
title = "hostile"
seed = 1
delta = 1e-5
slices = ["class"]
[data]
source = "digits"
pool = 400
ranges = {a = [0.0, 1.0]}
categories = {b = ["x", "y"]}
[model]
architecture = "mlp"
options = {width = 16, name = "n"}
[training]
epochs = 2
batch_size = 32
learning_rate = 0.1
[[attacks]]
name = "loss_threshold"
[[attacks]]
name = "lira"
shadows = 4
[[limits]]
measure = "auc"
maximum = 0.6
[control]
epochs = 3
[white_box]
canaries = 16
"""
AUDIT = BASE + '[scheme]\nname = "dp_sgd"\nnoise_multiplier = 1.0\n'
OTHER = '[[schemes]]\nname = "dp_sgd"\nlabel = "b"\nnoise_multiplier = 3.0\n'
COMPARE = BASE + '[[schemes]]\nname = "dp_sgd"\nvary = "noise_multiplier"\nvalues = [1.0, 2.0]\n' + OTHER
TUNE = BASE + '[scheme]\nname = "dp_sgd"\n[tune]\nknob = "noise_multiplier"\nrange = [0.5, 4.0]\nsteps = 3\n'
READING = 'label = "y"\nexclude = ["z"]\nranges = {a = [0.0, 1.0]}\n'

DATE = "1979-05-27T07:32:00Z"
NUMBERS = (0, -1, 1, 0.5, 2**63 - 1, -(2**63), 10**400, 1e300, 5e-324, math.inf, -math.inf, math.nan)
TEXTS = ("", "\x00", "\x1b[31m", "\ud800", "x" * 5000, "sgd", "none", "a:b", ":", "os:getcwd", DATE)
OTHERS = (True, [], {}, [[]], [1, 2], ["a"], {"": 1}, {"name": "none"}, [[[[[]]]]])
NASTY = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(OTHERS))
QUICK = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def audit(text: bytes) -> None:
    plan = parse_plan(text)
    check_limits(plan, [attack for attack, _ in resolve_attacks(plan)])
    resolve_architecture(plan, allow_code=False)
    resolve_defense(plan)
    if plan.training is not None and isinstance(plan.target, TrainedHere):
        architecture = resolve_architecture(plan, allow_code=False)
        resolve_recipe(plan.training, architecture, round(plan.target.pool / 2), control=plan.control)
    assert len(plan.digest) == len(plan.subject_digest) == 64
    parse_toml(toml_text(plan.model_dump(mode="json")), what="the plan again", error=AssertionError)


def compare(text: bytes) -> None:
    plan = compare_plan(parse_toml(text, what="the plan", error=PlanError))
    assert len(plan.digest) == 64
    assert plan.cells


def tune(text: bytes) -> None:
    plan = tune_plan(parse_toml(text, what="the plan", error=PlanError))
    assert len(plan.digest) == 64
    assert plan.settings


COMMANDS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "audit": (AUDIT, audit),
    "compare": (COMPARE, compare),
    "tune": (TUNE, tune),
}


def sensible(error: Exception) -> None:
    """A message is one short line that a terminal shows as it is."""
    assert len(str(error)) < 2500
    assert str(error).isprintable()


def refused(command: Callable[[bytes], None], text: bytes) -> None:
    try:
        command(text)
    except PlanError as error:
        sensible(error)


def written(found: Any) -> bytes | None:
    """TOML of a document, with real dates; None where there is no such TOML."""
    try:
        return toml_text(found).replace(f'"{DATE}"', DATE).encode("utf-8", "surrogatepass")
    except (TypeError, AttributeError, UnicodeError, ValueError):
        return None


def fuzz(name: str, kind: str, count: int) -> None:
    valid, command = COMMANDS[name]
    command(valid.encode())  # or nothing would be shown
    strategy = mutations(valid.encode()) if kind == "bytes" else replaced(tomllib.loads(valid), NASTY).map(written)

    def check(text: bytes | None) -> None:
        if text is not None:
            refused(command, text)

    settings(max_examples=count, **QUICK)(given(strategy)(check))()


@pytest.mark.parametrize("kind", ["bytes", "values"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_hostile_plan_is_refused_in_a_sentence(name: str, kind: str) -> None:
    fuzz(name, kind, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "values"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_hostile_plan_is_refused_at_length(name: str, kind: str) -> None:
    fuzz(name, kind, 2000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = " + "[" * 20_000, "nested too deeply"),
        ("seed = " + "9" * 5_000, "thousands of digits"),
        (f"[model.options]\nwhen = {DATE}", r"model\.options\.when.*date or time"),
        ("[model.options]\nwhen = 07:32:00", "date or time"),
        ("seed = 9223372036854775808", "64 bits"),
        ("delta = nan", "finite"),
        ("k" * 900_000 + " = 1", "900,000 characters"),
        ("k" * 400 + " = 1", "unknown"),
        ('title = "' + "x" * 900_000 + '"\nconfidence = 2', "confidence"),
        ("confidence = '" + "x" * 900_000 + "'", "confidence"),
        ("\n".join(f"key{number} = 1" for number in range(20_000)), "more problems"),
        ("attacks = [" + "{}," * 100_000 + "]", "too much"),
        ('title = "a\\u0000b"', "zero byte"),
        ("title = '\x1b[31m'", "not TOML"),
        ("x = 1\n" * 200_000, "larger than 1,000,000 bytes"),
        (b"title = '\xed\xa0\x80'", "UTF-8"),
    ],
)
def test_what_breaks_parsers_is_refused_in_a_short_sentence(text: str | bytes, said: str) -> None:
    with pytest.raises(PlanError, match=said) as found:
        parse_plan(text)
    sensible(found.value)


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "missing"])
def test_a_plan_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    path = {"device": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / "plan.toml")
    if kind == "FIFO":
        os.mkfifo(path)
    for read in (load_plan, lambda given: read_request("digits", None, given)):
        with pytest.raises(PlanError, match="No such file" if kind == "missing" else kind):
            read(path)


def test_the_reading_of_planted_data_is_checked_like_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "reading.toml"
    path.write_text(READING)
    assert read_request("digits", None, path).label == "y"
    for text in ("when = 1979-05-27", "x = " + "[" * 9_000, "split = '" + "x" * 10_000 + "'"):
        path.write_text(text)
        with pytest.raises(PlanError) as found:
            read_request("digits", None, path)
        assert len(str(found.value)) < 1000


def test_a_number_that_python_will_not_write_is_no_crash() -> None:
    with pytest.raises(PlanError, match="more than 70 digits"):
        parse_table({"title": "x", "confidence": 10**5000})
