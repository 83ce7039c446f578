"""The README's commands run as printed, with the exit codes that it promises; the plans in `examples/` are sound."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from auditor.compare.plan import load_compare_plan
from auditor.plan.plan import load_plan
from auditor.plan.resolve import resolve_attacks, resolve_defense
from auditor.tuning.looking import limit_probes
from auditor.tuning.plan import load_tune_plan
from auditor.verdicts.findings import check_limits
from reports.gate.apply_policy import parse_policy

ROOT = Path(__file__).parent.parent
PLANS = sorted([*ROOT.glob("examples/**/*.toml"), *ROOT.glob("auditor/cli/demo_plans/*.toml")])


def stories() -> list[tuple[str, int]]:
    """Return the commands of the stories that need no data with the exit codes that stand beside them."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index("## Four short stories") : text.index("## What is in it")]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL) for line in block.splitlines()]
    found = []
    for line in lines:
        command, _, remark = line.partition("#")
        found.append((command.strip(), int(re.search(r"\d", remark).group()) if "exit code" in remark else 0))
    return found


def test_the_stories_run_as_printed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    # The commands find `auditor` and `python` as they would in an activated environment.
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, arguments in (("python", ""), ("auditor", "-c 'from auditor.cli.main import main; main()'")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    commands = stories()
    assert len(commands) == 5
    for command, code in commands:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "audit-checkpoint" / "report.html").exists()
    assert (tmp_path / "gate.sarif").exists()


COMPARISONS = [path for path in PLANS if path.parent.name == "compare"]
TUNINGS = [path for path in PLANS if path.parent.name == "tune"]
AUDITS = [path for path in PLANS if path.name != "policy.toml" and path not in (*COMPARISONS, *TUNINGS)]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_an_example_comparison_is_sound(path: Path) -> None:
    cells = load_compare_plan(path).cells
    assert "none" in {resolve_defense(cell.plan).name for cell in cells}
    assert all(resolve_attacks(cell.plan) for cell in cells)


@pytest.mark.parametrize("path", TUNINGS, ids=lambda path: path.stem)
def test_an_example_tuning_is_sound(path: Path) -> None:
    tuning = load_tune_plan(path)
    for value in tuning.settings:
        plan = tuning.at(value)
        attacks = [attack for attack, _ in resolve_attacks(plan)]
        check_limits(plan, attacks)
        assert limit_probes(plan, attacks, epsilon=tuning.tune.epsilon)


@pytest.mark.parametrize("path", AUDITS, ids=lambda path: path.stem)
def test_an_example_plan_is_sound(path: Path) -> None:
    plan = load_plan(path)
    check_limits(plan, [attack for attack, _ in resolve_attacks(plan)])
    assert resolve_defense(plan).name in ("none", "dp_sgd")


def test_the_plans_in_the_documentation_are_sound(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "plans.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    trained, checkpoint = blocks
    model = trained[trained.index("[model]") : trained.index("[training]")]
    for text in (trained, 'title = "t"\n' + model + checkpoint):
        path = tmp_path / "plan.toml"
        path.write_text(text)
        plan = load_plan(path)
        check_limits(plan, [attack for attack, _ in resolve_attacks(plan)])
        resolve_defense(plan)


def test_the_policy_in_the_documentation_is_sound() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "policies.md").read_text(), re.DOTALL)
    assert len(parse_policy(block).rules) == 3
