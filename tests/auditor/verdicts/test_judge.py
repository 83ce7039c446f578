"""The verdicts: truth tables, properties, and the rate of false alarms over null audits."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from auditor.epsilon.bound import BoundKind, EpsilonBound
from auditor.epsilon.one_run_bound import one_run_from_scores
from auditor.statistics.membership import advantage, auc, tpr_at_fpr
from auditor.verdicts.judge import judge_claim, judge_leak
from defenses.guarantee import Guarantee, Neighboring, Unaccounted, Unit
from defenses.records import Inclusion
from reports.measures import _NAMED, measure, tpr_name
from reports.records.report import Estimate, Status

ADD, REPLACE = Neighboring.ADD_REMOVE, Neighboring.REPLACE_ONE
VIOLATED, CONSISTENT = Status.VIOLATED, Status.CONSISTENT
INCONCLUSIVE, NOT_COMPARABLE = Status.INCONCLUSIVE, Status.NOT_COMPARABLE


def bound(
    lower: float = 1.0,
    *,
    ceiling: float = 5.0,
    delta: float = 1e-5,
    neighboring: Neighboring = ADD,
    unit: Unit = Unit.RECORD,
    kind: BoundKind = BoundKind.CONFIDENCE,
) -> EpsilonBound:
    return EpsilonBound(lower, delta, neighboring, unit, 0.95, "test", kind, (), ceiling)


def guarantee(epsilon: float, *, delta: float = 1e-5, neighboring: Neighboring = ADD, curve: bool = False) -> Guarantee:
    """With `curve`, epsilon grows by one for each factor of ten in delta below the stated one."""
    return Guarantee(
        epsilon,
        delta,
        neighboring,
        epsilon_at=(lambda d: epsilon + math.log10(delta / d) if d > 0 else math.inf) if curve else None,
    )


# ---- claims


@pytest.mark.parametrize(
    ("lower", "ceiling", "claim", "status"),
    [
        (3.0, 5.0, 2.0, VIOLATED),
        (2.0, 5.0, 2.0, CONSISTENT),  # at the claim is not above it
        (0.0, 5.0, 2.0, CONSISTENT),
        (0.0, 2.0, 2.0, INCONCLUSIVE),  # the ceiling is at the claim
        (1.0, 1.5, 2.0, INCONCLUSIVE),
        (0.1, 5.0, 0.0, VIOLATED),
        (0.0, 5.0, 0.0, CONSISTENT),
        (5.0, 5.0, math.inf, INCONCLUSIVE),
    ],
)
def test_verdict_on_a_comparable_claim(lower: float, ceiling: float, claim: float, status: Status) -> None:
    found = judge_claim(bound(lower, ceiling=ceiling), guarantee(claim))
    assert (found.status, found.scope) == (status, "run")


def test_sentences_hold_the_numbers() -> None:
    violated = judge_claim(bound(3.1259), guarantee(2.0)).sentence
    for part in ("at least 3.125 ", "epsilon 2 at delta 1e-05", "95% confidence", "contradicted"):
        assert part in violated
    assert "could not have shown more than 1.5" in judge_claim(bound(1.0, ceiling=1.5), guarantee(2.0)).sentence
    assert "nothing finite is promised" in judge_claim(bound(), guarantee(math.inf)).sentence
    consistent = judge_claim(bound(), guarantee(2.0)).sentence
    assert "no contradiction found" in consistent
    assert "safe" not in consistent
    reason = judge_claim(bound(), Unaccounted("shuffled batches have no accountant"))
    assert reason.status is NOT_COMPARABLE
    assert "shuffled batches have no accountant" in reason.sentence


def test_units_must_agree() -> None:
    assert judge_claim(bound(4.0, unit=Unit.USER), guarantee(1.0)).status is NOT_COMPARABLE


@pytest.mark.parametrize(
    ("delta", "curve", "lower", "status"),
    [
        (1e-4, False, 3.0, VIOLATED),  # a larger delta only makes the claim easier to keep
        (1e-4, False, 1.0, CONSISTENT),
        (1e-6, False, 3.0, NOT_COMPARABLE),
        (1e-6, True, 2.9, CONSISTENT),  # 3 is promised there
        (1e-6, True, 3.1, VIOLATED),
        (1e-9, True, 4.0, INCONCLUSIVE),  # 6 is promised there, 5 the ceiling
        (0.0, True, 4.0, INCONCLUSIVE),  # nothing finite is promised there
    ],
)
def test_claims_at_another_delta(delta: float, curve: bool, lower: float, status: Status) -> None:
    assert judge_claim(bound(lower, delta=delta), guarantee(2.0, curve=curve)).status is status


@pytest.mark.parametrize(
    ("lower", "bound_delta", "claim", "claim_delta", "status"),
    [
        (3.9, 0.0, 2.0, 0.0, CONSISTENT),  # pure: (2 epsilon, 0)
        (4.1, 0.0, 2.0, 0.0, VIOLATED),
        (4.1, 1e-4, 2.0, 1e-5, VIOLATED),  # (1 + e^2) 1e-5 = 8.4e-5
        (4.1, 8.3e-5, 2.0, 1e-5, NOT_COMPARABLE),
        (4.1, 1e-5, 2.0, 1e-5, NOT_COMPARABLE),
        (4.9, 1e-5, 2.5, 0.0, INCONCLUSIVE),
        (4.9, 1e-5, 1e6, 1e-5, NOT_COMPARABLE),  # e^epsilon overflows
        (4.9, 1e-5, math.inf, 1e-5, INCONCLUSIVE),
    ],
)
def test_a_replace_one_bound_against_an_add_remove_claim(
    lower: float, bound_delta: float, claim: float, claim_delta: float, status: Status
) -> None:
    found = bound(lower, delta=bound_delta, neighboring=REPLACE)
    assert judge_claim(found, guarantee(claim, delta=claim_delta)).status is status


def test_a_replace_one_bound_uses_the_curve_where_delta_is_too_small() -> None:
    claim = guarantee(1.0, curve=True)
    # At single delta d: epsilon 1 - log10(d / 1e-5) and pair delta (1 + e^epsilon) d; solve for 1e-5.
    single = next(d for d in np.geomspace(1e-5, 1e-8, 200_001) if (1 + math.exp(1 - math.log10(d / 1e-5))) * d <= 1e-5)
    promised = 2 * (1 - math.log10(single / 1e-5))
    for lower, status in [(promised - 0.01, CONSISTENT), (promised + 0.01, VIOLATED)]:
        assert judge_claim(bound(lower, neighboring=REPLACE), claim).status is status
    nowhere = replace(claim, epsilon_at=lambda delta: math.inf if delta < 1e-5 else 1.0)
    assert judge_claim(bound(4.0, neighboring=REPLACE), nowhere).status is NOT_COMPARABLE
    pure = replace(claim, epsilon_at=lambda delta: 1.5)
    assert judge_claim(bound(3.1, delta=0.0, neighboring=REPLACE), pure).status is VIOLATED


def test_an_add_remove_bound_cannot_meet_a_replace_one_claim() -> None:
    assert judge_claim(bound(5.0), guarantee(0.1, neighboring=REPLACE)).status is NOT_COMPARABLE
    assert judge_claim(bound(5.0, neighboring=REPLACE), guarantee(0.1, neighboring=REPLACE)).status is VIOLATED


def test_implied_bounds_speak_of_the_step_and_credible_ones_of_credibility() -> None:
    for lower in (1.0, 3.0):
        implied = judge_claim(bound(lower, kind=BoundKind.IMPLIED), guarantee(2.0))
        assert implied.scope == "step"
        assert "step" in implied.sentence
        assert "run as a whole" in implied.sentence
        assert "implies" in implied.sentence
    assert "guarantee is contradicted" not in implied.sentence
    credible = judge_claim(bound(3.0, kind=BoundKind.CREDIBLE), guarantee(2.0))
    assert credible.status is VIOLATED
    assert "credib" in credible.sentence


def test_claims_property_a_weaker_claim_is_never_more_violated() -> None:
    claims = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf]
    rank = {VIOLATED: 0, CONSISTENT: 1, INCONCLUSIVE: 2}
    for lower, kind, curve in itertools.product([0.0, 0.7, 1.0, 3.0, 5.0], BoundKind, [False, True]):
        found = [rank[judge_claim(bound(lower, kind=kind), guarantee(c, curve=curve)).status] for c in claims]
        assert found == sorted(found)
        for claim in claims:
            violated = judge_claim(bound(lower, kind=kind), guarantee(claim)).status is VIOLATED
            assert violated == (lower > claim)


# ---- leaks


def estimate(value: float, low: float, high: float, n: int | None = 1000) -> Estimate:
    return Estimate(value=value, low=low, high=high, level=0.95, method="test", n=n)


STRONG, WEAK = estimate(0.4, 0.3, 0.5), estimate(0.012, 0.008, 0.02)
BARE = Estimate(value=0.4, method="test")
UNMEASURED = Estimate(method="test", reason="the control was not trained")
ABOVE, AT, BELOW, ACROSS = (
    estimate(0.05, 0.04, 0.06),
    estimate(0.02, 0.01, 0.03),
    estimate(0.01, 0.0, 0.02),
    estimate(0.04, 0.02, 0.06),
)


@pytest.mark.parametrize(
    ("found", "control", "required", "status"),
    [
        (ABOVE, STRONG, True, Status.LEAKS),
        (ABOVE, WEAK, True, Status.LEAKS),  # a leak that was found needs no control
        (ABOVE, None, True, Status.LEAKS),
        (BELOW, STRONG, True, Status.WITHIN),
        (AT, STRONG, True, Status.WITHIN),  # the upper limit is at the limit
        (BELOW, WEAK, True, INCONCLUSIVE),
        (BELOW, WEAK, False, INCONCLUSIVE),  # a control that fails always counts
        (BELOW, BARE, True, INCONCLUSIVE),
        (BELOW, UNMEASURED, True, INCONCLUSIVE),
        (BELOW, None, True, INCONCLUSIVE),
        (BELOW, None, False, Status.WITHIN),
        (ACROSS, STRONG, True, INCONCLUSIVE),
        (ACROSS, None, False, INCONCLUSIVE),
        (BARE, STRONG, True, INCONCLUSIVE),
        (UNMEASURED, STRONG, True, INCONCLUSIVE),
    ],
)
def test_verdict_on_a_leak(found: Estimate, control: Estimate | None, required: bool, status: Status) -> None:
    judged = judge_leak(
        found, 0.03, control=control, baseline=0.01, control_required=required, measure="tpr_at_fpr_0.01"
    )
    assert judged.status is status
    assert judged.sentence.endswith(".")


def test_leak_sentences_hold_the_numbers() -> None:
    def sentence(found: Estimate, control: Estimate | None = STRONG, limit: float = 0.03) -> str:
        return judge_leak(
            found, limit, control=control, baseline=0.01, control_required=True, measure="tpr_at_fpr_0.01"
        ).sentence

    assert sentence(ABOVE) == "TPR at 1% FPR is 5% (95% CI 4% to 6%): even the lower end is above the limit 3%."
    assert "finds 40% (95% CI 30% to 50%)" in sentence(BELOW)
    assert "1.2% (95% CI 0.8% to 2%)" in sentence(BELOW, WEAK)
    assert "guessing" in sentence(BELOW, WEAK)
    assert "not trained" in sentence(BELOW, UNMEASURED)
    assert "About 4,000 instead of 1,000 records" in sentence(ACROSS)  # half the distance, four times the records
    assert "About 1,000 instead of 1,000" in sentence(estimate(0.04, 0.03, 0.05))
    assert "no number of records" in sentence(estimate(0.03, 0.02, 0.04))
    assert "no number of records" in sentence(estimate(0.04, 0.02, 0.05, None))
    coarse = judge_leak(estimate(0.7, 0.6, 0.8), 0.65, control=None, baseline=0.5, control_required=True, measure="auc")
    assert coarse.sentence.startswith("AUC is 0.7 (95% CI 0.6 to 0.8): the interval contains the limit 0.65.")


def test_what_cannot_be_resolved_says_how_many_would_do() -> None:
    scores = np.random.default_rng(0).normal(size=600)
    members = np.arange(600) < 315
    tiny = tpr_at_fpr(scores, members, fpr=0.001, level=0.95)
    judged = judge_leak(tiny, 0.005, control=STRONG, baseline=0.001, control_required=True, measure="tpr_at_fpr_0.001")
    assert judged.status is INCONCLUSIVE
    assert "at least 1,000 needed" in judged.sentence
    scores, members = np.arange(3000.0), np.arange(3000) >= 2000
    few = tpr_at_fpr(scores, members, fpr=0.001, level=0.95)
    judged = judge_leak(few, 0.005, control=STRONG, baseline=0.001, control_required=True, measure="tpr_at_fpr_0.001")
    assert judged.status is INCONCLUSIVE
    assert "4,675 are needed" in judged.sentence


def test_leaks_property_a_higher_limit_is_never_more_exceeded() -> None:
    rank = {Status.LEAKS: 0, INCONCLUSIVE: 1, Status.WITHIN: 2}
    limits = [0.0, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1]
    for found, control in itertools.product([ABOVE, AT, BELOW, ACROSS], [STRONG, None]):
        verdicts = [
            rank[judge_leak(found, limit, control=control, baseline=0.01, control_required=False).status]
            for limit in limits
        ]
        assert verdicts == sorted(verdicts)


def test_a_limit_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="limit is nan"):
        judge_leak(ABOVE, math.nan, control=None, baseline=0.5, control_required=True)
    with pytest.raises(ValueError, match="no measure is called"):
        judge_leak(ABOVE, 0.5, control=None, baseline=0.5, control_required=True, measure="accuracy")


# ---- false alarms


def test_null_audits_rarely_end_in_an_alarm() -> None:
    rng = np.random.default_rng(16)
    measures = ("auc", "advantage", tpr_name(0.01))
    alarms = dict.fromkeys((*measures, "epsilon"), 0)
    for _ in range(200):
        scores, coins = rng.normal(size=1000), rng.random(1000) < 0.5
        found = {
            "auc": auc(scores, coins, level=0.95),
            "advantage": advantage(scores, coins, level=0.95),
            tpr_name(0.01): tpr_at_fpr(scores, coins, fpr=0.01, level=0.95),
        }
        for name, value in found.items():
            judged = judge_leak(
                value,
                measure(name).baseline or 0.0,
                control=None,
                baseline=measure(name).baseline,
                control_required=True,
                measure=name,
            )
            alarms[name] += judged.status is Status.LEAKS
        shown = one_run_from_scores(scores, coins, inclusion=Inclusion.INDEPENDENT, delta=1e-5, confidence=0.95)
        alarms["epsilon"] += judge_claim(shown.bound, Guarantee(0.0, 1e-5, ADD)).status is VIOLATED
    for count in alarms.values():
        assert count <= 18
        assert stats.binomtest(count, 200, 0.05, alternative="greater").pvalue > 1e-3


# ---- measures whose value under guessing is not known

UNKNOWN = [name for name, about in _NAMED.items() if about.claims and about.baseline is None]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_figure_alone_never_passes_where_the_value_under_guessing_is_not_known(name: str) -> None:
    """A coin-tossing attack was right in 52%, and was WITHIN a limit of 60% by a control that did not exist."""
    coins = Estimate(value=0.52, low=0.48, high=0.56, level=0.95, method="", n=500)
    for required in (True, False):
        for beats in (True, False):
            judged = judge_leak(
                coins,
                0.6,
                control=None,
                baseline=measure(name).baseline,
                control_required=required,
                measure=name,
                beats_guessing=beats,
            )
            assert judged.status is Status.INCONCLUSIVE
            assert "on a model known to leak the same attack finds" not in judged.sentence
            assert "what guessing reaches in this measure is not known" in judged.sentence


@pytest.mark.parametrize(
    ("control", "status"),
    [
        (Estimate(value=0.52, low=0.48, high=0.56, level=0.95, method="", n=500), Status.INCONCLUSIVE),
        (Estimate(value=0.62, low=0.58, high=0.66, level=0.95, method="", n=500), Status.INCONCLUSIVE),
        (Estimate(value=0.72, low=0.68, high=0.76, level=0.95, method="", n=500), Status.WITHIN),
    ],
    ids=["as much as here", "around the limit", "surely above the limit"],
)
@pytest.mark.parametrize("name", UNKNOWN)
def test_there_only_a_control_that_surely_exceeds_the_limit_lets_a_figure_pass(
    name: str, control: Estimate, status: Status
) -> None:
    found = Estimate(value=0.52, low=0.48, high=0.56, level=0.95, method="", n=500)
    judged = judge_leak(found, 0.6, control=control, baseline=None, control_required=True, measure=name)
    assert judged.status is status


def test_the_measures_of_unknown_guessing_are_these() -> None:
    assert set(UNKNOWN) == {"guess_accuracy", "fidelity", "singling_out_rate", "similarity"}
