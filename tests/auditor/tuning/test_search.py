"""The search against a simulated trainer whose leak is known: what it passes wrongly, how many looks it takes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from auditor.statistics import membership
from auditor.tuning.judging import Figures, LimitProbe, SettingFacts, judge_setting
from auditor.tuning.search import BISECTION, FIXED, error_of_look, looks_at_most, search
from auditor.tuning.walk import bisection, fixed_sequence, looks_of_bisection
from reports.records.report import Estimate, Status
from reports.records.tuning import Look, Outcome, Stage

LIMIT = 0.55
PROBE = LimitProbe("attack", "An attack", "auc", LIMIT)
CONTROL = Estimate(value=0.9, low=0.88, high=0.92, level=0.9, method="", n=600)
SEEDS = 500


class FakeTrainer:
    """Trains nothing: its attack's scores have the AUC that `leak` gives for the setting."""

    def __init__(self, leak: Callable[[float], float], rng: np.random.Generator, *, records: int = 300) -> None:
        self.leak, self.rng, self.records = leak, rng, records
        self.taken: list[tuple[float, Stage]] = []

    def __call__(self, value: float, stage: Stage, level: float) -> Look:
        self.taken.append((value, stage))
        shift = math.sqrt(2) * stats.norm.ppf(self.leak(value))
        included = np.arange(2 * self.records) < self.records
        scores = self.rng.normal(size=len(included)) + shift * included
        found = membership.auc(scores, included, level=level)
        return judge_setting(
            value, stage, [PROBE], {PROBE: Figures((found,))}, {PROBE: CONTROL}, SettingFacts(),
            level=level,
        )  # fmt: skip


def rising(crossing: float) -> Callable[[float], float]:
    """AUC against sigma: falling with the noise, and exactly at the limit where sigma is `crossing`."""
    return lambda sigma: 0.5 + (LIMIT - 0.5) * (crossing / sigma) ** 1.5


@pytest.mark.parametrize("mode", [FIXED, BISECTION])
def test_an_answer_above_the_threshold_is_given_at_most_at_the_stated_rate(mode: str) -> None:
    settings = [8.0, 4.0, 2.0, 1.9, 1.0, 0.5]  # 2 is at the limit, 1.9 hardly beyond: the worst that can be asked
    wrong, walked_wrong, answers = 0, 0, 0
    for seed in range(SEEDS):
        trainer = FakeTrainer(rising(2.0), np.random.default_rng(seed), records=800)
        found = search(settings, trainer, mode=mode)
        passed = [look.value for look in found.looks if look.stage is Stage.WALK and look.verdict is Status.WITHIN]
        walked_wrong += any(value <= 2.0 for value in passed)
        wrong += found.answer is not None and found.answer <= 2.0
        answers += found.answer is not None
    rate = stats.binom.ppf(0.999, SEEDS, 0.05)
    assert wrong <= rate / 3  # the walk and the final look both have to be wrong
    assert walked_wrong <= rate
    assert answers > SEEDS / 3  # it does answer


def test_the_walk_is_not_needlessly_strict() -> None:
    """Exactly at the limit a look passes about as often as it may: intervals that are too wide would never."""
    passes = sum(
        FakeTrainer(lambda _: LIMIT, np.random.default_rng(seed))(1.0, Stage.WALK, 0.9).verdict is Status.WITHIN
        for seed in range(SEEDS)
    )
    low, high = stats.binom.ppf([0.0005, 0.9995], SEEDS, 0.05)
    assert low <= passes <= high


def test_a_leak_that_is_not_monotone_does_not_fool_the_fixed_sequence() -> None:
    leaks = {8.0: 0.5, 4.0: 0.65, 2.0: 0.5, 1.0: 0.5}
    for seed in range(100):
        found = search(list(leaks), FakeTrainer(leaks.__getitem__, np.random.default_rng(seed)))
        assert found.answer in (None, 8.0)
        assert 2.0 not in [look.value for look in found.looks]


def test_bisection_passes_nothing_that_leaks_though_the_leak_is_not_monotone() -> None:
    leaks = {8.0: 0.5, 4.0: 0.65, 2.0: 0.5, 1.0: 0.65, 0.5: 0.7}
    answers = {
        search(list(leaks), FakeTrainer(leaks.__getitem__, np.random.default_rng(seed)), mode=BISECTION).answer
        for seed in range(100)
    }
    assert answers <= {None, 8.0, 2.0}
    assert 2.0 in answers


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 100, 1000])
def test_looks_of_a_bisection_grow_with_the_logarithm(count: int) -> None:
    for boundary in {0, 1, count // 3, count // 2, count - 1, count}:
        looked: list[int] = []

        def look(place: int, boundary: int = boundary, looked: list[int] = looked) -> bool:
            looked.append(place)
            return place < boundary

        assert bisection(count, look) == (boundary - 1 if boundary else None)
        assert len(looked) <= looks_of_bisection(count) <= math.log2(count) + 1
        assert len(set(looked)) == len(looked)
    assert looks_at_most(BISECTION, count) == looks_of_bisection(count) + 1
    assert error_of_look(BISECTION, count, confidence=0.95) == pytest.approx(0.05 / looks_of_bisection(count))


def test_a_fixed_sequence_stops_at_the_first_failure() -> None:
    looked: list[int] = []
    assert fixed_sequence(5, lambda place: looked.append(place) or place != 2) == 1
    assert looked == [0, 1, 2]
    assert fixed_sequence(3, lambda _: True) == 2
    assert fixed_sequence(3, lambda _: False) is None


def _look(verdict: Status, *, accuracy: Estimate | None = None) -> Callable[[float, Stage, float], Look]:
    return lambda value, stage, level: Look(
        stage=stage, value=value, verdict=verdict, sentence="", probes=[], accuracy_holdout=accuracy
    )


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Status.LEAKS, Outcome.NONE),
        (Status.VIOLATED, Outcome.NONE),
        (Status.INCONCLUSIVE, Outcome.UNDECIDED),
        (Status.ERROR, Outcome.FAILED),
        (Status.WITHIN, Outcome.ALL),
    ],
)
def test_what_the_walk_meets_decides_the_outcome(verdict: Status, outcome: Outcome) -> None:
    found = search([4.0, 2.0], _look(verdict))
    assert found.outcome is outcome
    assert (found.answer is not None) is (outcome is Outcome.ALL)


def test_what_is_not_confirmed_is_no_answer_and_no_second_choice_is_made() -> None:
    def look(value: float, stage: Stage, level: float) -> Look:
        verdict = Status.WITHIN if stage is Stage.WALK and value > 1 else Status.INCONCLUSIVE
        return Look(stage=stage, value=value, verdict=verdict, sentence="", probes=[])

    found = search([4.0, 2.0, 1.0], look)
    assert (found.outcome, found.answer) == (Outcome.UNCONFIRMED, None)
    assert [look.stage for look in found.looks].count(Stage.FINAL) == 1
    assert found.looks[-1].value == 2.0


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.85, 0.9, Outcome.ALL), (0.75, 0.85, Outcome.UNDECIDED), (0.6, 0.7, Outcome.TOO_INACCURATE)],
)
def test_accuracy_is_held_to_its_floor_by_its_interval(low: float, high: float, outcome: Outcome) -> None:
    accuracy = Estimate(value=(low + high) / 2, low=low, high=high, level=0.95, method="", n=100)
    found = search([1.0], _look(Status.WITHIN, accuracy=accuracy), minimum_accuracy=0.8)
    assert found.outcome is outcome
