"""One score per run -> a bound, by each method: nominal on known mechanisms, and the threshold paid for."""

from collections.abc import Callable

import numpy as np
import pytest
from bound_simulations import AUDITS, DELTA, assert_nominal, noisy_scores

from auditor.epsilon.credible_bound import CREDIBLE, joint_credible
from auditor.epsilon.error_counts import CountMethod, bound_from_runs
from auditor.epsilon.gaussian_bound import GAUSSIAN, gaussian_dp
from auditor.epsilon.one_run_bound import CLOPPER_PEARSON, clopper_pearson
from defenses.guarantee import Neighboring, Unit
from defenses.records import Inclusion

PAIRED = Inclusion.PAIRED_RUNS
METHODS = pytest.mark.parametrize("method", [CLOPPER_PEARSON, GAUSSIAN, CREDIBLE], ids=lambda method: method.name)


def shown(
    mechanism: str, method: CountMethod, *, audits: int = AUDITS, runs: int = 200, confidence: float = 0.95
) -> np.ndarray:
    """Bounds of repeated audits, each choosing its threshold on one half of its runs."""
    rng = np.random.default_rng(8)
    lower = []
    for _ in range(audits):
        included = rng.random(runs) < 0.5
        scores = noisy_scores(mechanism, included, rng)
        bound = bound_from_runs(
            scores,
            included,
            method=method,
            inclusion=PAIRED,
            delta=DELTA,
            confidence=confidence,
            rng=np.random.default_rng(0),
        )
        lower.append(bound.lower)
    return np.array(lower)


@METHODS
@pytest.mark.parametrize(("mechanism", "epsilon"), [("null", 0.0), ("gaussian", 1.0)])
def test_thresholds_chosen_on_a_split_keep_every_method_nominal(
    method: CountMethod, mechanism: str, epsilon: float
) -> None:
    assert_nominal(int((shown(mechanism, method) > epsilon).sum()))


@pytest.mark.parametrize("mechanism", ["response", "laplace"])
def test_clopper_pearson_assumes_no_shape(mechanism: str) -> None:
    assert_nominal(int((shown(mechanism, CLOPPER_PEARSON) > 1).sum()))


def test_the_gaussian_bound_is_wrong_for_other_shapes_and_says_so() -> None:
    for mechanism in ("laplace", "response"):
        lower = shown(mechanism, GAUSSIAN, audits=20, runs=4000)
        assert (lower > 1.5).all(), mechanism  # the truth is 1
    assert any(
        "Laplace" in assumption for assumption in gaussian_dp(1, 9, 1, 9, delta=DELTA, confidence=0.9).assumptions
    )


def test_the_half_that_chooses_gives_no_figure() -> None:
    # Few runs, and a level that is not met with room to spare: chosen on the same runs, 95% of audits would be wrong.
    lower = shown("null", CREDIBLE, runs=60, confidence=0.6)
    assert_nominal(int((lower > 0).sum()), rate=0.4)


@METHODS
def test_runs_find_a_plain_leak_with_either_threshold(method: CountMethod) -> None:
    scores, included = np.arange(2000.0), np.arange(2000) >= 1000
    split = bound_from_runs(
        scores,
        included,
        method=method,
        inclusion=PAIRED,
        delta=DELTA,
        confidence=0.95,
        rng=np.random.default_rng(0),
        unit=Unit.USER,
        neighboring=Neighboring.REPLACE_ONE,
    )
    half = method.bound(
        0, 500, 0, 500, delta=DELTA, confidence=0.95, neighboring=Neighboring.REPLACE_ONE, unit=Unit.USER
    )
    assert 4.5 < split.lower <= split.ceiling == half.ceiling
    assert (split.unit, split.neighboring) == (Unit.USER, Neighboring.REPLACE_ONE)


@pytest.mark.parametrize(
    ("method", "bound"), [(CLOPPER_PEARSON, clopper_pearson), (GAUSSIAN, gaussian_dp), (CREDIBLE, joint_credible)]
)
def test_a_fixed_threshold_uses_all_runs_and_pays_for_comparisons(
    method: CountMethod, bound: Callable[..., object]
) -> None:
    scores, included = np.arange(200.0), np.arange(200) >= 100
    fixed = bound_from_runs(
        scores, included, method=method, inclusion=PAIRED, delta=DELTA, confidence=0.95, threshold=103.0, comparisons=2
    )
    direct = bound(0, 100, 3, 100, delta=DELTA, confidence=0.975)
    assert (fixed.lower, fixed.ceiling) == (direct.lower, direct.ceiling)  # type: ignore[attr-defined]
    assert fixed.confidence == 0.95


@METHODS
@pytest.mark.parametrize("design", [Inclusion.FIXED, Inclusion.INDEPENDENT])
def test_other_designs_are_refused(method: CountMethod, design: Inclusion) -> None:
    with pytest.raises(ValueError, match=f"{design.name}.*{method.name}"):
        bound_from_runs(
            [0.0, 1.0], [False, True], method=method, inclusion=design, delta=DELTA, confidence=0.95, threshold=0.5
        )


@pytest.mark.parametrize(
    ("message", "scores", "included", "change"),
    [
        ("neither threshold nor rng", np.zeros(9), np.arange(9) < 4, {}),
        ("1 runs with", [1.0, 2.0, 3.0], [True, False, False], {"rng": np.random.default_rng(0)}),
        ("NaN", [1.0, np.nan], [True, False], {"threshold": 0.0}),
        ("threshold is nan", [1.0, 2.0], [True, False], {"threshold": np.nan}),
        ("negatives is 0", [1.0, 2.0], [True, True], {"threshold": 0.0}),
        ("comparisons is 0", [1.0, 2.0], [True, False], {"threshold": 0.0, "comparisons": 0}),
        ("confidence is 1", [1.0, 2.0], [True, False], {"threshold": 0.0, "confidence": 1.0}),
    ],
)
def test_errors_name_the_value(
    message: str, scores: list[float], included: list[bool], change: dict[str, float]
) -> None:
    given = {"delta": DELTA, "confidence": 0.95} | change
    with pytest.raises(ValueError, match=message):
        bound_from_runs(scores, included, method=CLOPPER_PEARSON, inclusion=PAIRED, **given)  # type: ignore[arg-type]
