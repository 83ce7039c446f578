"""The main job on real data, as the example plans state it (fewer shadow models where it runs in every test)."""

from pathlib import Path

import pytest

from auditor.audit import Audit, run_audit
from auditor.context import RunContext
from auditor.plan.plan import Plan, load_plan
from auditor.workspace import Workspace
from reports.records.report import Status

EXAMPLES = Path(__file__).parents[2] / "examples"


def audit(plan: Plan, data_dir: Path, work: Path) -> Audit:
    return run_audit(plan, RunContext(Workspace(work), data_dir=data_dir, device="cpu"))


def test_location_is_almost_fully_exposed_without_protection(data_dir: Path, tmp_path: Path) -> None:
    plan = load_plan(EXAMPLES / "location30_none.toml").model_copy(update={"shadows": 8})
    found = audit(plan, data_dir, tmp_path)
    assert found.report.verdict is Status.LEAKS
    best = max(attack.measures["auc"].value or 0 for attack in found.report.attacks)
    assert best > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("data", ["location30", "fashion_mnist"])
def test_the_unprotected_model_is_flagged_and_the_private_one_is_not(data: str, data_dir: Path, tmp_path: Path) -> None:
    leaky = audit(load_plan(EXAMPLES / f"{data}_none.toml"), data_dir, tmp_path)
    private = audit(load_plan(EXAMPLES / f"{data}_dp_sgd.toml"), data_dir, tmp_path)
    assert leaky.report.verdict is Status.LEAKS
    assert private.report.verdict not in (Status.LEAKS, Status.VIOLATED, Status.ERROR)
    for attack in private.report.attacks:
        if attack.name in ("lira", "rmia"):
            control = attack.control["auc"]
            assert control.low is not None
            assert control.low > 0.5  # silence counts only from an attack that sees the leak of the control
