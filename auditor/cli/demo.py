"""The demonstration: one small network on scikit-learn's digits, without protection and with DP-SGD."""

from importlib import resources

from auditor.plan.plan import Plan, parse_plan

PLANS = ("no-protection", "dp-sgd")


def demo_plan(name: str) -> Plan:
    """Return a plan of the demonstration by its name in `PLANS`."""
    return parse_plan(resources.files("auditor.cli").joinpath("demo_plans", f"{name}.toml").read_text())
