"""The examples of CONTRIBUTING.md, written into a copy of the repository, and its commands as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a minute; `.ci/run` runs it all the same

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
CODE = r"```(?:python|toml)\n# (\S+)\n(.*?)```"


def section(title: str) -> str:
    """Return the text of a section."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository with every file that CONTRIBUTING.md prints."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("auditor", "attacks", "defenses", "reports", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, code in re.findall(CODE, TEXT, re.DOTALL):
        assert not (copy / name).exists()
        (copy / name).write_text(f"# {name}\n{code}" if name.endswith(".toml") else code)
    (copy / "bin").mkdir()
    for name, arguments in (("python", ""), ("auditor", "-c 'from auditor.cli.main import main; main()'")):
        (copy / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (copy / "bin" / name).chmod(0o755)
    return copy


@pytest.mark.parametrize("title", ["Write an attack", "Write a scheme", "Write a DP check"])
def test_its_commands_run_as_printed(title: str, checkout: Path) -> None:
    path = f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(checkout)}
    commands = [
        line for block in re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL) for line in block.split("\n")
    ]
    for command, _, remark in (line.partition("#") for line in commands if line):
        code = int(re.findall(r"exit code (\d)", remark)[0]) if remark else 0
        done = subprocess.run(command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"


def test_its_files_keep_the_rules_of_the_linter(checkout: Path) -> None:
    names = [name for name, _ in re.findall(CODE, TEXT, re.DOTALL) if name.endswith(".py")]
    for check in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *check, "--no-cache", *names]
        done = subprocess.run(ruff, cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
