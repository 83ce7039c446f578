"""Start-up: help, gate and the bare import answer without loading torch; discovery lists what a plan can name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditor.cli.main import app

HEAVY = ("torch", "torchvision", "art", "sklearn", "matplotlib", "seaborn", "scipy")


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nimport json; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import auditor",
        "import auditor.cli.main",
        "from typer.testing import CliRunner; from auditor.cli.main import app; CliRunner().invoke(app, ['--help'])",
        "from typer.testing import CliRunner; from auditor.cli.main import app\n"
        "assert CliRunner().invoke(app, ['gate', 'nowhere.json', '--policy', 'nowhere.toml']).exit_code == 2",
        "import reports.gate.apply_policy, reports.gate.to_junit, reports.gate.to_sarif",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not loaded_after(code) & set(HEAVY)


def test_list_names_everything() -> None:
    found = CliRunner().invoke(app, ["list"])
    assert found.exit_code == 0
    for name in ("digits", "location30", "mlp", "resnet", "dp_sgd", "lira", "rmia"):
        assert f"  {name} " in found.stdout


def test_the_public_names_are_there() -> None:
    import auditor

    assert all(getattr(auditor, name) is not None for name in auditor.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = auditor.nothing


def test_a_gate_without_its_files_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    found = CliRunner().invoke(app, ["gate", str(tmp_path / "report.json"), "--policy", str(tmp_path / "p.toml")])
    assert found.exit_code == 2
    assert "Traceback" not in found.output
    assert CliRunner().invoke(app, ["gate"]).exit_code == 2
