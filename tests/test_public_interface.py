"""What `import auditor` offers: light, complete, documented by examples that run, and typed for users of the wheel."""

import ast
import doctest
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import auditor
from attacks.registry import registered_attacks
from auditor.canaries.canary_type import canary_types
from auditor.cli.list import sections
from defenses.architectures import NAMES
from defenses.schemes import registered_schemes

ROOT = Path(__file__).parent.parent
PACKAGES = ("attacks", "auditor", "defenses", "reports")
CONSUMER = """
from pathlib import Path

import auditor
from attacks.membership import lira_scores, logit_confidence, rmia_scores
from auditor.epsilon import bayesian, clopper_pearson, gaussian_dp, many_runs, one_run, one_run_fdp
from auditor.statistics import auc, roc, tpr_at_fpr

context = auditor.RunContext(auditor.Workspace(Path("work")), device="cpu")
audit: auditor.Audit = auditor.run_audit(auditor.load_plan(Path("plan.toml")), context)
code: auditor.ExitCode = audit.report.exit_code
lower: float = one_run(1000, 1000, 700, delta=1e-5, confidence=0.95).lower
area: float | None = auc([0.1, 0.9], [False, True], level=0.95).value
result = auditor.apply_policy(audit.report, auditor.load_policy(Path("policy.toml")))
auditor.write_audit(audit, Path("out"))
reveal_type(result.exit_code)
"""


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "auditor" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(auditor.__all__)
    assert all(getattr(auditor, name) is not None for name in auditor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = auditor.nothing


def loaded_by(code: str) -> set[str]:
    """Return which of the heavy packages a program loads."""
    program = (
        f"import sys\n{code}\nprint(*(set(sys.modules) & {{'torch', 'numpy', 'pydantic', 'matplotlib', 'pandas'}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import auditor, attacks.membership") == set()
    assert "torch" not in loaded_by("import auditor.epsilon, auditor.statistics")


@pytest.mark.parametrize("arguments", ["--version", "--help", "list", "gate --help", "render --help"])
def test_these_commands_load_no_torch(arguments: str) -> None:
    call = f"from auditor.cli.main import app\ntry:\n    app({arguments.split()!r})\nexcept SystemExit:\n    pass"
    assert not loaded_by(call) & {"torch", "matplotlib"}


def test_the_list_is_what_plans_can_name() -> None:
    listed = list(sections().values())
    assert set(listed[1]) == set(NAMES)
    assert listed[2] == {name: scheme.paper for name, scheme in registered_schemes().items()}
    assert listed[3] == {name: attack.paper for name, attack in registered_attacks().items()}
    assert listed[4] == {name: kind.summary for name, kind in canary_types().items()}


@pytest.mark.parametrize(
    "module",
    [
        "auditor.epsilon",
        "auditor.epsilon.credible_bound",
        "auditor.epsilon.error_counts",
        "auditor.epsilon.gaussian_bound",
        "auditor.epsilon.one_run_bound",
        "auditor.epsilon.one_run_fdp_bound",
        "auditor.statistics",
        "auditor.statistics.membership",
        "auditor.statistics.units",
        "reports.suggestions",
    ],
)
def test_examples_in_docstrings_run(module: str) -> None:
    loaded = importlib.import_module(module)
    found = doctest.testmod(loaded, extraglobs={"np": importlib.import_module("numpy")})
    assert found.failed == 0


@pytest.mark.slow  # a minute; `.ci/run` runs it all the same
def test_a_program_against_the_installed_wheel_is_strictly_typed(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert {
        "reports/pages/report.html.jinja",
        "reports/pages/report.css",
        "auditor/cli/demo_plans/dp-sgd.toml",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (tmp_path / "consumer.py").write_text(CONSUMER)
    # Stubs of the dependencies are not the consumer's business; what our own packages declare is.
    check = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--follow-untyped-imports", "consumer.py"]
    done = subprocess.run(
        check, cwd=tmp_path, env={"MYPYPATH": str(tmp_path / "installed"), "PATH": ""}, capture_output=True, text=True
    )
    ours = [line for line in done.stdout.splitlines() if line.startswith("consumer.py") and ": error:" in line]
    assert not ours, done.stdout
    assert 'Revealed type is "reports.exit_codes.ExitCode"' in done.stdout
