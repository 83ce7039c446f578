"""The policy: refused in words wherever it could not mean what it says."""

import pytest
from report_samples import policy_text

from reports.errors import ReportError
from reports.gate.apply_policy import apply_policy, parse_policy
from reports.records.report import Report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("require_control = true", "empty"),
        ("rules = []", "empty"),
        ("x = [", "not TOML"),
        ('requird_attacks = ["lira"]', "did you mean 'required_attacks'"),
        ('[[rules]]\nmeasure = "auc"\nmaxmum = 0.6', "unknown key 'maxmum' in rules[1].maxmum; did you mean 'maximum'"),
        ("[[rules]]\nmaximum = 0.6", "rules[1].measure: Field required"),
        ('[[rules]]\nmeasure = "auc"', "sets no limit"),
        (policy_text(1.5), "must be below 1"),
        (policy_text(1.0, measure="auc"), "can never be exceeded"),
        (policy_text(-0.1), "must be at least 0.01"),
        (policy_text(0.4, measure="auc"), "must be at least 0.5"),
        (policy_text(-1.0, measure="epsilon"), "cannot be negative"),
        (policy_text("claims"), 'is for "epsilon"'),
        (policy_text("lots"), "rules[1].maximum"),
        ('[[rules]]\nmeasure = "auc"\nmaximum = nan', "finite"),
        ('[[rules]]\nmeasure = "epsilon"\nmaximum = inf', "finite"),
        ('[[rules]]\nmeasure = "auc"\nmaximum = true', "rules[1].maximum"),
        ('[[rules]]\nmeasure = "epsilon"\nmaximum_increase = 0.5', "lower bound only"),
        ('[[rules]]\nmeasure = "auc"\nmaximum_increase = -0.1', "must be at least 0 and below 1"),
        (f"{policy_text()}\n{policy_text(0.05)}", "give each an id"),
        ('required_attacks = "lira"', "required_attacks"),
        (policy_text(top='allow_inconclusive = "no"'), "allow_inconclusive"),
    ],
)
def test_a_wrong_policy_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ReportError) as raised:
        parse_policy(text)
    assert said in str(raised.value)


def test_rules_with_ids_of_their_own_may_repeat(private: Report) -> None:
    text = "\n".join(f'{policy_text(maximum)}\nid = "{name}"' for name, maximum in (("hard", 0.03), ("soft", 0.02)))
    assert {row.rule for row in apply_policy(private, parse_policy(text)).rows} >= {"hard", "soft"}


def test_whole_numbers_are_numbers() -> None:
    assert parse_policy(policy_text(2, measure="epsilon")).rules[0].maximum == 2.0
