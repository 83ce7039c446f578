"""One look: which probe decides, what a doubt, a blind probe or several models do to a verdict."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from auditor.tuning.judging import STEPS, Figures, LimitProbe, SettingFacts, judge_setting, mean_over_runs
from reports.measures import EPSILON
from reports.records.report import Estimate, Status
from reports.records.tuning import Look, Stage

AUC, TPR = LimitProbe("lira", "LiRA", "auc", 0.6), LimitProbe("rmia", "RMIA", "auc", 0.6)
GAN = LimitProbe("participant_gan", "Participant's GAN", "auc", 0.6, faint=True)
CANARIES = LimitProbe(STEPS, "Gradient canaries", EPSILON, 4.0)
SEES = Estimate(value=0.9, low=0.85, high=0.95, level=0.9, method="", n=100)


def near(value: float, reach: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach, level=0.9, method="", n=100)


def judged(
    found: dict[LimitProbe, Figures], *, facts: SettingFacts | None = None, blind: tuple[LimitProbe, ...] = ()
) -> Look:
    sighted = {one: SEES for one in found if one not in blind}
    return judge_setting(1.0, Stage.WALK, list(found), found, sighted, facts or SettingFacts(), level=0.9)


def test_all_that_count_have_to_be_within() -> None:
    assert judged({AUC: Figures((near(0.52),)), TPR: Figures((near(0.55),))}).verdict is Status.WITHIN
    straddles = judged({AUC: Figures((near(0.52),)), TPR: Figures((near(0.59),))})
    assert (straddles.verdict, straddles.bound_by) == (Status.INCONCLUSIVE, "rmia")
    leaks = judged({AUC: Figures((near(0.7),)), TPR: Figures((near(0.59),))})
    assert (leaks.verdict, leaks.bound_by) == (Status.LEAKS, "lira")


def test_the_probe_that_comes_closest_is_named_where_all_are_within() -> None:
    assert judged({AUC: Figures((near(0.52),)), TPR: Figures((near(0.56),))}).bound_by == "rmia"


def test_a_probe_that_did_not_see_the_control_decides_nothing_unless_it_finds_a_leak() -> None:
    silent = judged({AUC: Figures((near(0.52),)), TPR: Figures((near(0.59),))}, blind=(TPR,))
    assert silent.verdict is Status.WITHIN
    assert [probe.counts for probe in silent.probes] == [True, False]
    assert judged({AUC: Figures((near(0.52),)), TPR: Figures((near(0.7),))}, blind=(TPR,)).verdict is Status.LEAKS
    assert judged({AUC: Figures((near(0.52),))}, blind=(AUC,)).verdict is Status.INCONCLUSIVE


def test_a_doubt_keeps_a_figure_from_being_within() -> None:
    look = judged({AUC: Figures((near(0.52),), doubt="But copies would not have been seen.")})
    assert look.verdict is Status.INCONCLUSIVE
    assert "copies would not have been seen" in look.sentence


def test_generators_alone_say_nothing_at_a_small_epsilon() -> None:
    found = {GAN: Figures((near(0.5),))}
    assert judged(found, facts=SettingFacts(epsilon=8.0)).verdict is Status.INCONCLUSIVE
    assert judged(found, facts=SettingFacts(epsilon=300.0)).verdict is Status.WITHIN
    assert judged({**found, AUC: Figures((near(0.5),))}, facts=SettingFacts(epsilon=8.0)).verdict is Status.WITHIN
    steps = Figures((Estimate(value=3.0, low=2.9, high=3.1, level=0.9, method="", n=1),))
    assert judged({**found, CANARIES: steps}, facts=SettingFacts(epsilon=8.0)).verdict is Status.WITHIN


def test_a_limit_that_nothing_was_measured_for_is_not_kept() -> None:
    """The generator of this setting collapsed: another probe of the same thing can settle its limit, no other."""
    collapsed = Figures((), reason="the generator collapsed")
    alike = judged({AUC: Figures((near(0.5),)), TPR: collapsed})
    assert alike.verdict is Status.WITHIN
    assert "the generator collapsed" in alike.probes[1].sentence
    other = LimitProbe("copies", "Copies", "similarity", 0.5, about="samples")
    look = judged({AUC: Figures((near(0.5),)), other: collapsed})
    assert look.verdict is Status.INCONCLUSIVE
    assert "Nothing settles the limit of 0.5 here" in look.sentence
    assert judged({TPR: collapsed}).verdict is Status.INCONCLUSIVE


def test_a_strict_limit_is_not_settled_by_a_loose_one_nor_one_of_a_named_attack_by_another() -> None:
    loose = replace(AUC, limit=0.9)
    strict, named = replace(TPR, limit=0.58), replace(TPR, named=True)
    within = Figures((near(0.52),))
    assert judged({loose: within, strict: within}, blind=(strict,)).verdict is Status.INCONCLUSIVE
    assert judged({AUC: within, named: within}, blind=(named,)).verdict is Status.INCONCLUSIVE
    assert judged({AUC: within, TPR: within}, blind=(TPR,)).verdict is Status.WITHIN


def test_two_limits_on_one_attack_are_two_probes() -> None:
    tight, wide = replace(AUC, limit=0.57), replace(AUC, limit=0.7)
    look = judged({tight: Figures((near(0.56),)), wide: Figures((near(0.56),))}, blind=(tight,))
    assert [probe.counts for probe in look.probes] == [False, True]
    assert look.verdict is Status.INCONCLUSIVE  # the tight one stays open
    seen = judged({tight: Figures((near(0.56),)), wide: Figures((near(0.56),))})
    assert seen.bound is not None
    assert seen.bound.limit == 0.57


def test_runs_that_are_all_nothing_have_not_shown_that_nothing_leaks() -> None:
    nothing = Estimate(value=0.0, low=0.0, high=0.04, level=0.98, method="", n=100)
    found = mean_over_runs([nothing] * 8, level=0.9)
    assert found.high == pytest.approx(0.04 / np.sqrt(8))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(3.0, 3.9, Status.WITHIN), (3.5, 4.5, Status.INCONCLUSIVE), (4.1, 5.0, Status.LEAKS)],
)
def test_canaries_are_held_to_the_limit_on_epsilon(low: float, high: float, verdict: Status) -> None:
    found = Estimate(value=(low + high) / 2, low=low, high=high, level=0.9, method="", n=1)
    assert judged({CANARIES: Figures((found,))}).verdict is verdict


def test_a_contradiction_or_a_failure_goes_before_everything() -> None:
    fine = {AUC: Figures((near(0.5),))}
    assert judged(fine, facts=SettingFacts(contradicted="the claim is contradicted")).verdict is Status.VIOLATED
    both = SettingFacts(contradicted="the claim is contradicted", failed="LiRA failed")
    assert judged(fine, facts=both).verdict is Status.ERROR


def test_over_several_models_the_model_is_the_unit() -> None:
    """Eight models that differ by more than their own intervals: the mean is held to the limit by their spread."""
    each = tuple(near(value, 0.005) for value in (0.50, 0.62, 0.51, 0.63, 0.50, 0.62, 0.50, 0.61))
    look = judged({AUC: Figures(each)})
    assert look.probes[0].found.unit == "model"
    assert look.probes[0].runs == [one.value for one in each]
    assert look.verdict is Status.LEAKS  # one model is surely above
    steady = tuple(near(value, 0.15) for value in (0.50, 0.51, 0.52, 0.50, 0.51, 0.53, 0.50, 0.51))
    assert judged({AUC: Figures(steady)}).verdict is Status.WITHIN  # each alone would be undecided


def test_the_mean_over_models_covers() -> None:
    rng, missed = np.random.default_rng(1), 0
    for _ in range(1000):
        runs = [near(float(value)) for value in np.clip(rng.normal(0.55, 0.03, 8), 0, 1)]
        high = mean_over_runs(runs, level=0.9).high
        assert high is not None
        missed += high < 0.55
    assert stats.binomtest(missed, 1000, 0.05).pvalue > 1e-3


def test_one_model_without_a_figure_leaves_no_mean() -> None:
    nothing = Estimate(method="", reason="too few records")
    found = mean_over_runs([near(0.5), nothing], level=0.9)
    assert (found.value, found.reason) == (None, "too few records")
