"""The registry of measures: one place that says what each is."""

import pytest

from reports.measures import limited_measure, measure, ppv_name, tpr_name


def test_measures_have_names_baselines_and_words() -> None:
    assert tpr_name(0.01) == "tpr_at_fpr_0.01"
    assert tpr_name(0.001) == "tpr_at_fpr_0.001"
    assert ppv_name(0.1) == "ppv_at_prior_0.1"
    baselines = {"auc": 0.5, "advantage": 0.0, "tpr_at_fpr_0.001": 0.001, "ppv_at_prior_0.1": 0.1}
    assert {name: measure(name).baseline for name in baselines} == baselines
    assert limited_measure("tpr_at_fpr_0.001").short == "TPR at 0.1% FPR"
    assert limited_measure("ppv_at_prior_0.1").short == "predictive value at a prior of 10%"


@pytest.mark.parametrize("wrong", ["accuracy", "tpr_at_fpr_", "tpr_at_fpr_2", "ppv_at_prior_x", "epsilon"])
def test_a_limit_on_something_else_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="no measure is called"):
        limited_measure(wrong)


def test_another_spelling_is_named() -> None:
    with pytest.raises(ValueError, match=r"'tpr_at_fpr_0\.010' is spelled 'tpr_at_fpr_0\.01'"):
        limited_measure("tpr_at_fpr_0.010")


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_rates_lie_between_0_and_1(rate: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        tpr_name(rate)
