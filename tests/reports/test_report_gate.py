"""The gate's truth table: every outcome, every exit code, and which one wins."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from report_samples import TPR, policy_text

from reports.exit_codes import ExitCode, worst
from reports.gate.apply_policy import apply_policy, parse_policy
from reports.gate.gate_result import GateResult, Outcome
from reports.records.report import Report

Change = Callable[..., Report]


def outcomes(result: GateResult, rule: str) -> set[Outcome]:
    return {row.outcome for row in result.rows if row.rule == rule}


def interval(value: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "level": 0.95, "method": "m", "n": 8000, **more}


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (0.031, 0.04, ExitCode.EXCEEDED),
        (0.03, 0.04, ExitCode.INCONCLUSIVE),  # at the limit is not above it
        (0.02, 0.04, ExitCode.INCONCLUSIVE),
        (0.02, 0.03, ExitCode.PASS),  # at the limit is not above it
        (0.02, 0.0301, ExitCode.INCONCLUSIVE),
        (0.01, 0.02, ExitCode.PASS),
        (None, 0.02, ExitCode.PASS),
        (0.04, None, ExitCode.EXCEEDED),
        (0.02, None, ExitCode.INCONCLUSIVE),
        (None, None, ExitCode.INCONCLUSIVE),
    ],
)
def test_a_rule_decides_on_the_interval(
    leaky: Report, change: Change, low: float | None, high: float | None, code: ExitCode
) -> None:
    middle = (low if low is not None else 0.0) if high is None else (high if low is None else (low + high) / 2)
    report = change(leaky, f"attacks/2/measures/{TPR}", interval(middle, low, high))
    assert apply_policy(report, parse_policy(policy_text())).exit_code is code


def test_a_point_estimate_above_the_limit_alone_does_not_fail(leaky: Report, change: Change) -> None:
    report = change(leaky, f"attacks/2/measures/{TPR}", interval(0.05, 0.02, 0.08))
    assert apply_policy(report, parse_policy(policy_text())).exit_code is ExitCode.INCONCLUSIVE


def test_an_unresolvable_measure_is_inconclusive_with_its_reason(private: Report) -> None:
    result = apply_policy(private, parse_policy(policy_text(0.01, measure="tpr_at_fpr_0.001")))
    assert result.exit_code is ExitCode.INCONCLUSIVE
    assert "Not resolvable with 3,988 non-members" in result.sentence


def test_without_an_attack_the_rule_holds_for_every_attack_that_has_the_measure(leaky: Report) -> None:
    result = apply_policy(leaky, parse_policy(policy_text(attack=None)))
    assert {row.attack for row in result.rows if row.rule == TPR} == {"lira", "rmia", "loss_threshold"}
    assert result.exit_code is ExitCode.EXCEEDED
    assert "LiRA" in result.sentence  # of several failures the largest is named


def test_the_sample_reports(leaky: Report, private: Report, incomplete: Report, inconclusive: Report) -> None:
    policy = parse_policy(policy_text())
    assert apply_policy(leaky, policy).exit_code is ExitCode.EXCEEDED
    assert apply_policy(private, policy).exit_code is ExitCode.PASS
    assert apply_policy(incomplete, policy).exit_code is ExitCode.INCOMPLETE
    tight = parse_policy(policy_text(0.02))
    assert apply_policy(inconclusive, tight).exit_code is ExitCode.INCONCLUSIVE


# --- the control ---


@pytest.mark.parametrize(
    ("measure", "baseline", "maximum"), [(TPR, 0.01, 0.5), ("auc", 0.5, 0.9), ("advantage", 0.0, 0.9)]
)
def test_a_pass_needs_a_control_above_guessing(
    private: Report, change: Change, measure: str, baseline: float, maximum: float
) -> None:
    policy = parse_policy(policy_text(maximum, measure=measure))
    assert apply_policy(private, policy).exit_code is ExitCode.PASS
    weak = change(private, f"attacks/2/control/{measure}", interval(baseline + 0.1, baseline, baseline + 0.2))
    result = apply_policy(weak, policy)
    assert result.exit_code is ExitCode.INCONCLUSIVE
    assert "did not beat guessing" in result.sentence
    strong = change(private, f"attacks/2/control/{measure}", interval(baseline + 0.1, baseline + 0.001, baseline + 0.2))
    assert apply_policy(strong, policy).exit_code is ExitCode.PASS
    missing = apply_policy(change(private, "attacks/2/control", {}), policy)
    assert missing.exit_code is ExitCode.INCONCLUSIVE
    assert "no control" in missing.sentence


def test_an_attack_that_finds_a_leak_here_needs_no_control(private: Report, change: Change) -> None:
    report = change(private, "attacks/2/control", {})
    report = change(report, f"attacks/2/measures/{TPR}", interval(0.02, 0.015, 0.025))
    assert apply_policy(report, parse_policy(policy_text(0.03))).exit_code is ExitCode.PASS


def test_the_silence_of_a_blind_attack_decides_nothing_where_another_one_sees(private: Report, change: Change) -> None:
    everyone = parse_policy(policy_text(0.5, attack=None))
    one_blind = change(private, "attacks/0/control", {})
    result = apply_policy(one_blind, everyone)
    assert result.exit_code is ExitCode.PASS
    blind = next(row for row in result.rows if row.attack == "loss_threshold")
    assert (blind.outcome, blind.tolerated) == (Outcome.INCONCLUSIVE, True)
    assert "Another attack carries this rule" in blind.sentence
    all_blind = change(change(one_blind, "attacks/1/control", {}), "attacks/2/control", {})
    assert apply_policy(all_blind, everyone).exit_code is ExitCode.INCONCLUSIVE


def test_the_control_can_be_waived_but_never_excuses_a_leak(private: Report, leaky: Report, change: Change) -> None:
    waived = parse_policy(policy_text(top="require_control = false"))
    assert apply_policy(change(private, "attacks/2/control", {}), waived).exit_code is ExitCode.PASS
    assert (
        apply_policy(change(leaky, "attacks/2/control", {}), parse_policy(policy_text())).exit_code is ExitCode.EXCEEDED
    )


def test_a_third_party_measure_has_no_baseline_to_beat(private: Report, change: Change) -> None:
    report = change(private, "attacks/2/measures/surprise", interval(0.1, 0.05, 0.2))
    report = change(report, "attacks/2/control/surprise", interval(0.9, 0.8, 1.0))
    result = apply_policy(report, parse_policy(policy_text(0.5, measure="surprise")))
    assert result.exit_code is ExitCode.INCONCLUSIVE
    assert "nothing is known of what guessing gets" in result.sentence


@pytest.mark.parametrize("name", ["guess_accuracy", "fidelity", "singling_out_rate", "similarity"])
def test_a_waived_control_does_not_let_a_figure_pass_whose_value_under_guessing_is_not_known(
    private: Report, change: Change, name: str
) -> None:
    report = change(private, f"attacks/2/measures/{name}", interval(0.52, 0.48, 0.56))
    policy = parse_policy(policy_text(0.6, measure=name, top="require_control = false"))
    assert apply_policy(report, policy).exit_code is ExitCode.INCONCLUSIVE
    same = change(report, f"attacks/2/control/{name}", interval(0.52, 0.48, 0.56))
    assert apply_policy(same, policy).exit_code is ExitCode.INCONCLUSIVE
    leaky = change(report, f"attacks/2/control/{name}", interval(0.72, 0.68, 0.76))
    assert apply_policy(leaky, policy).exit_code is ExitCode.PASS


# --- epsilon and claims ---


@pytest.mark.parametrize(
    ("lower", "ceiling", "maximum", "code"),
    [
        (2.5, 5.77, 2.0, ExitCode.EXCEEDED),
        (2.0, 5.77, 2.0, ExitCode.PASS),
        (0.3, 5.77, 2.0, ExitCode.PASS),
        (0.3, 1.9, 2.0, ExitCode.INCONCLUSIVE),  # it could not have shown more
        (0.3, 2.0, 2.0, ExitCode.INCONCLUSIVE),
        (0.3, math.inf, 2.0, ExitCode.PASS),
    ],
)
def test_epsilon_against_a_number(
    private: Report, change: Change, lower: float, ceiling: float, maximum: float, code: ExitCode
) -> None:
    report = change(change(private, "epsilons/shown/lower", lower), "epsilons/shown/ceiling", ceiling)
    policy = parse_policy(policy_text(maximum, measure="epsilon", attack=None))
    assert apply_policy(report, policy).exit_code is code


def test_an_implied_bound_decides_nothing_about_the_run(private: Report, change: Change) -> None:
    report = change(change(private, "epsilons/shown/lower", 5.0), "epsilons/shown/kind", "implied")
    result = apply_policy(report, parse_policy(policy_text(2.0, measure="epsilon", attack=None)))
    assert result.exit_code is ExitCode.INCONCLUSIVE


def test_epsilon_that_was_not_shown_cannot_pass(leaky: Report) -> None:
    result = apply_policy(leaky, parse_policy(policy_text(2.0, measure="epsilon", attack=None)))
    assert result.exit_code is ExitCode.INCONCLUSIVE
    assert "no canaries in the plan" in result.sentence


def test_epsilon_needs_a_control_too(private: Report, change: Change) -> None:
    policy = parse_policy(policy_text(2.0, measure="epsilon", attack=None))
    result = apply_policy(change(private, "attacks/2/control", {}), policy)
    assert result.exit_code is ExitCode.INCONCLUSIVE


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("violated", ExitCode.EXCEEDED),
        ("consistent", ExitCode.PASS),
        ("inconclusive", ExitCode.INCONCLUSIVE),
        ("not_comparable", ExitCode.INCONCLUSIVE),
        ("error", ExitCode.INCOMPLETE),
    ],
)
def test_epsilon_against_the_claims(private: Report, change: Change, status: str, code: ExitCode) -> None:
    report = change(private, "findings/1/status", status)
    assert apply_policy(report, parse_policy(policy_text("claims", measure="epsilon", attack=None))).exit_code is code


def test_a_contradicted_claim_fails_whatever_the_rules_say(private: Report, change: Change) -> None:
    report = change(private, "findings/1/status", "violated")
    result = apply_policy(report, parse_policy(policy_text()))
    assert result.exit_code is ExitCode.EXCEEDED
    assert outcomes(result, "claims") == {Outcome.FAIL}
    lenient = parse_policy(policy_text(top="fail_on_claims = false"))
    assert apply_policy(report, lenient).exit_code is ExitCode.PASS


# --- what did not run ---


def test_a_failed_attack_makes_the_audit_incomplete(private: Report, change: Change) -> None:
    report = change(change(private, "attacks/1/status", "failed"), "attacks/1/reason", "out of memory")
    result = apply_policy(report, parse_policy(policy_text()))
    assert result.exit_code is ExitCode.INCOMPLETE
    assert "out of memory" in result.sentence


def test_an_attack_left_out_counts_only_where_it_was_required(private: Report, change: Change) -> None:
    assert apply_policy(private, parse_policy(policy_text())).exit_code is ExitCode.PASS
    by_plan = change(private, "attacks/3/required", True)
    assert apply_policy(by_plan, parse_policy(policy_text())).exit_code is ExitCode.INCOMPLETE
    by_policy = parse_policy(policy_text(top='required_attacks = ["label_only"]'))
    assert apply_policy(private, by_policy).exit_code is ExitCode.INCOMPLETE


def test_a_required_attack_that_is_not_there_is_named_with_its_nearest(private: Report) -> None:
    result = apply_policy(private, parse_policy('required_attacks = ["lirra"]'))
    assert result.exit_code is ExitCode.INCOMPLETE
    assert "did you mean 'lira'?" in result.sentence


def test_required_attacks_alone_are_a_policy(private: Report) -> None:
    assert apply_policy(private, parse_policy('required_attacks = ["lira", "rmia"]')).exit_code is ExitCode.PASS


def test_a_rule_on_an_attack_that_is_not_there_never_passes(private: Report) -> None:
    result = apply_policy(private, parse_policy(policy_text(attack="rmai", top="allow_inconclusive = true")))
    assert result.exit_code is ExitCode.INCOMPLETE
    assert "did you mean 'rmia'?" in result.sentence


def test_a_rule_on_a_measure_that_nobody_has_never_passes(private: Report) -> None:
    lenient = "allow_inconclusive = true\nrequire_control = false"
    result = apply_policy(private, parse_policy(policy_text(0.03, measure="tpr_at_fpr_0.02", attack=None, top=lenient)))
    assert result.exit_code is ExitCode.INCOMPLETE
    result = apply_policy(private, parse_policy(policy_text(0.5, measure="tpr_at_fpr_001", attack=None, top=lenient)))
    assert result.exit_code is ExitCode.USAGE
    assert "did you mean 'tpr_at_fpr_0.01'?" in result.sentence or "did you mean 'tpr_at_fpr_0.001'?" in result.sentence


def test_measures_of_an_attack_that_failed_do_not_count(private: Report, change: Change) -> None:
    report = change(private, "attacks/2/status", "failed")
    result = apply_policy(report, parse_policy(policy_text(top="allow_inconclusive = true")))
    assert result.exit_code is ExitCode.INCOMPLETE


def test_inconclusive_can_be_let_through_and_is_still_said(inconclusive: Report) -> None:
    result = apply_policy(inconclusive, parse_policy(policy_text(0.02, top="allow_inconclusive = true")))
    assert result.exit_code is ExitCode.PASS
    assert "1 inconclusive, let through" in result.sentence


# --- precedence ---


def test_precedence_of_exit_codes() -> None:
    order = [ExitCode(code) for code in (2, 5, 1, 4, 3, 0)]
    for size in range(1, 7):
        for codes in itertools.permutations(order, size):
            assert worst(codes) is min(codes, key=order.index)
    assert worst([]) is ExitCode.INCONCLUSIVE


def test_a_proven_failure_is_not_hidden_by_an_attack_that_failed(leaky: Report, change: Change) -> None:
    report = change(leaky, "attacks/0/status", "failed")
    result = apply_policy(report, parse_policy(policy_text()))
    assert result.exit_code is ExitCode.EXCEEDED
    assert result.rows[0].outcome is Outcome.FAIL
    assert result.rows[0].sentence in result.sentence


def test_a_finding_that_does_not_count_decides_no_exit_code(private: Report, change: Change) -> None:
    worse = change(private, "findings/0/status", "inconclusive")
    assert worse.exit_code is ExitCode.INCONCLUSIVE
    assert change(worse, "findings/0/counts", False).exit_code is ExitCode.PASS


def test_exit_code_of_an_audit(leaky: Report, private: Report, incomplete: Report, change: Change) -> None:
    assert leaky.exit_code is ExitCode.EXCEEDED
    assert private.exit_code is ExitCode.PASS
    assert incomplete.exit_code is ExitCode.INCOMPLETE
    assert change(private, "findings/0/status", "inconclusive").exit_code is ExitCode.INCONCLUSIVE
    assert change(private, "findings/1/status", "not_comparable").exit_code is ExitCode.INCONCLUSIVE
    assert change(private, "attacks/3/required", True).exit_code is ExitCode.INCOMPLETE
    assert change(private, "attacks/0/status", "failed").exit_code is ExitCode.INCOMPLETE
    judged_nothing = change(change(private, "findings/0/status", "information"), "findings/1/status", "information")
    assert judged_nothing.exit_code is ExitCode.INCONCLUSIVE


# --- the baseline ---

INCREASE = f'[[rules]]\nmeasure = "{TPR}"\nattack = "lira"\nmaximum_increase = 0.02\n'


@pytest.mark.parametrize(
    ("now", "before", "code"),
    [
        ((0.06, 0.08), (0.01, 0.03), ExitCode.EXCEEDED),  # at least 0.03 more
        ((0.05, 0.08), (0.01, 0.03), ExitCode.INCONCLUSIVE),
        ((0.02, 0.03), (0.01, 0.03), ExitCode.PASS),  # at most 0.02 more
        ((0.02, 0.031), (0.01, 0.03), ExitCode.INCONCLUSIVE),
        ((0.0, 0.01), (0.05, 0.07), ExitCode.PASS),
    ],
)
def test_growth_is_judged_on_both_intervals(
    private: Report, change: Change, now: tuple[float, float], before: tuple[float, float], code: ExitCode
) -> None:
    def at(low: float, high: float) -> Report:
        return change(private, f"attacks/2/measures/{TPR}", interval((low + high) / 2, low, high))

    assert apply_policy(at(*now), parse_policy(INCREASE), at(*before)).exit_code is code


def test_a_missing_baseline_is_a_usage_error(private: Report) -> None:
    result = apply_policy(private, parse_policy(INCREASE))
    assert result.exit_code is ExitCode.USAGE
    assert "give a baseline" in result.sentence


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("subject/data_digest", "sha256:other"),
        ("schema_version", "1.4"),
        ("attacks/2/name", "another"),
        ("attacks/2/status", "failed"),
        ("attacks/2/measures", {}),
        (f"attacks/2/measures/{TPR}/level", 0.99),
        (f"attacks/2/measures/{TPR}/unit", "owner"),
        (f"attacks/2/measures/{TPR}", {"method": "m", "reason": "too few"}),
    ],
)
def test_a_baseline_that_does_not_compare(private: Report, change: Change, path: str, value: Any) -> None:
    result = apply_policy(private, parse_policy(INCREASE), change(private, path, value))
    assert result.exit_code is ExitCode.NOT_COMPARABLE


def test_growth_needs_a_control_as_well(private: Report, change: Change) -> None:
    report = change(private, "attacks/2/control", {})
    assert apply_policy(report, parse_policy(INCREASE), private).exit_code is ExitCode.INCONCLUSIVE


def test_an_unused_baseline_is_said(private: Report) -> None:
    assert "baseline was not used" in apply_policy(private, parse_policy(policy_text()), private).sentence


def test_a_rule_may_have_both_limits(private: Report) -> None:
    result = apply_policy(private, parse_policy(f"{INCREASE}maximum = 0.03\n"), private)
    assert [row.limit for row in result.rows if row.rule == f"{TPR}-lira"] == ["3%", "+2%"]
    assert result.exit_code is ExitCode.PASS
