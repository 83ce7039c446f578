"""Numbers in words: what a reader sees must not say more, less or other than the record."""

import math

import pytest

from reports.measures import measure
from reports.pages import wording
from reports.pages.toml_text import toml_text
from reports.records.report import Estimate, Status


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.031, "3.10%"),
        (0.0304, "3.04%"),
        (0.31, "31.0%"),
        (0.0012, "0.120%"),
        (0.00012, "0.0120%"),
        (0.931, "93.1%"),
        (0.9996, "99.96%"),
        (0.99999, "99.999%"),
    ],
)
def test_shares(share: float, written: str) -> None:
    assert wording.percent(share) == written


@pytest.mark.parametrize("share", [1e-7, 1e-4, 0.0004, 0.9999, 0.99996, 1 - 1e-7])
def test_a_share_never_rounds_to_none_or_all(share: float) -> None:
    assert float(wording.percent(share).rstrip("%")) not in (0.0, 100.0)


def test_chosen_numbers_keep_their_digits() -> None:
    assert wording.limit(0.03, "tpr_at_fpr_0.01") == "3%"
    assert wording.limit(0.005, "tpr_at_fpr_0.001") == "0.5%"
    assert wording.limit(0.55, "auc") == "0.55"
    assert wording.limit(1.98374, "epsilon") == "1.98374"
    assert wording.compact(1e-5) == "1e-5"
    assert wording.compact(math.inf) == "infinite"


def test_an_estimate_is_never_written_without_its_interval() -> None:
    estimate = Estimate(value=0.031, low=0.026, high=0.037, level=0.95, method="m")
    assert wording.found(estimate, "tpr_at_fpr_0.001") == "3.10% (95% CI 2.60% to 3.70%)"
    assert wording.found(Estimate(value=0.031, method="m"), "tpr_at_fpr_0.001") == "3.10% (no interval)"
    assert wording.found(Estimate(method="m", reason="too few records"), "auc") == "Too few records"
    bound = Estimate(value=1.31, low=1.31, level=0.95, method="m")
    assert wording.found(bound, "epsilon") == "at least 1.31 (95% confidence)"
    corrected = Estimate(value=0.6, low=0.5, high=0.7, level=0.9875, method="m")
    assert wording.found(corrected, "auc") == "0.600 (98.75% CI 0.500 to 0.700)"


@pytest.mark.parametrize(
    ("epsilon", "least", "most"),
    [
        (0.318, "0.31", "0.32"),
        (0.29, "0.29", "0.29"),
        (1.98374, "1.98", "1.99"),
        (0.00456, "0.0045", "0.0046"),
        (0.0999, "0.099", "0.10"),
        (12345.6, "12,345", "12,346"),
        (1e-12, "0.0000000000010", "0.0000000000010"),
        (0.0, "0", "0"),
        (1e32, "1e32", "1e32"),
        (math.inf, "infinite", "infinite"),
    ],
)
def test_a_bound_is_never_rounded_to_say_more_than_was_shown(epsilon: float, least: str, most: str) -> None:
    assert wording.at_least(epsilon) == least
    assert wording.at_most(epsilon).rstrip("0").rstrip(".") == most.rstrip("0").rstrip(".")


def test_open_ends_are_said_in_words() -> None:
    upper = Estimate(value=0.5, low=-math.inf, high=0.6, level=0.95, method="m")
    assert wording.interval(upper, "auc") == "at most 0.600"
    lower = Estimate(value=0.5, low=0.4, high=math.inf, level=0.95, method="m")
    assert wording.interval(lower, "auc") == "at least 0.400"


def test_measures_in_plain_english() -> None:
    assert measure("tpr_at_fpr_0.01").title == "Members found at 1% false alarms"
    assert measure("tpr_at_fpr_1e-05").fpr == pytest.approx(1e-5)
    assert measure("tpr_at_fpr_0.001").baseline == pytest.approx(0.001)
    assert measure("ppv_at_prior_0.1").baseline == pytest.approx(0.1)
    assert measure("auc").baseline == 0.5


@pytest.mark.parametrize("name", ["tpr_at_fpr_1", "tpr_at_fpr_0", "tpr_at_fpr_2", "tpr_at_fpr_x", "tpr", "made_up", ""])
def test_names_that_mean_nothing_are_not_known(name: str) -> None:
    assert not measure(name).known
    assert measure(name).baseline is None
    assert measure(name).title


def test_no_verdict_says_safe() -> None:
    for status in Status:
        said = f"{wording.STATUS_WORDS[status]} {wording.STATUS_MEANINGS[status]}".lower()
        for word in ("safe", "secure", "is private", "proven"):
            assert word not in said


def test_counts_and_digests() -> None:
    assert wording.count(1, "canary") == "1 canary"
    assert wording.count(1000, "canary") == "1,000 canaries"
    assert wording.count(None, "record") == ""
    assert wording.short_digest("sha256:" + "ab" * 32) == "sha256:abababababab…"
    assert wording.short_digest("short") == "short"


def test_a_plan_can_be_copied_out_of_the_report() -> None:
    import tomllib

    plan = {
        "title": 'quotes " and \\ and a \x7f',
        "data": {"name": "digits", "sizes": [1, 2.5], "deep er": {"on": True}},
        "attacks": [{"name": "lira", "shadows": 16}, {"name": "rmia", "options": {"gamma": 1e-9}}],
        "delta": 1e-5,
        "limit": math.inf,
        "empty": [],
        "mixed": [{"a": 1}, 2],
    }
    assert tomllib.loads(toml_text({**plan, "absent": None})) == plan
