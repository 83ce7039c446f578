"""The arithmetic under the battery: corrected p-values, correlations, counts, implied bounds, judged runs."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from auditor.debug_dp.check import Answer
from auditor.debug_dp.checks.noise_repeats import _alike
from auditor.debug_dp.checks.sampler import _spread_p
from auditor.debug_dp.claim import Claim
from auditor.debug_dp.counting import seen, visits
from auditor.debug_dp.many_runs import _KNOWN, Runs, judged
from auditor.debug_dp.p_values import holm, least_error
from auditor.epsilon.one_run_bound import clopper_pearson


def test_holm_rejects_what_the_sequential_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.beta(0.3, 1, int(rng.integers(1, 9)))
        level = rng.uniform(0.01, 0.3)
        rejected = np.zeros(len(p), dtype=bool)
        for rank, i in enumerate(np.argsort(p)):
            if p[i] > level / (len(p) - rank):
                break
            rejected[i] = True
        assert (np.array(holm(p.tolist())) <= level).tolist() == rejected.tolist()
    assert holm([]) == []
    with pytest.raises(ValueError, match="outside"):
        holm([0.5, math.nan])


def test_least_error_is_where_the_limit_crosses() -> None:
    def lower(error: float) -> float:
        return float(stats.beta.ppf(error, 40, 100 - 40 + 1))

    p = least_error(lambda error: lower(error) > 0.3)
    assert p == pytest.approx(stats.binom.sf(39, 100, 0.3), rel=2e-3)
    assert least_error(lambda error: False) == 1.0
    assert least_error(lambda error: True) == 1e-12


def test_correlations_of_independent_noise_are_uniform_p_values() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (2, 5, 300):
        a, b = torch.randn(2, 500, size, generator=generator).double()
        p = [_alike(x, y, "")[0] for x, y in zip(a, b, strict=True)]
        assert stats.kstest(p, "uniform").pvalue > 1e-3, size
    same = torch.randn(300, generator=generator).double()
    assert _alike(same, -3 * same, "")[0] < 1e-100
    assert _alike(same, torch.zeros(300).double(), "")[0] == 1.0


def test_spreads_of_poisson_lots_pass_and_fixed_or_repeated_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    p = [_spread_p(rng.binomial(32, 0.25, (1, 24)).astype(float), 32, 0.25, rng=rng) for _ in range(25)]
    assert stats.binomtest(sum(x <= 0.2 for x in p), 25, 0.2, alternative="greater").pvalue > 1e-3
    assert np.mean(p) < 0.75  # and they are not stuck at 1
    assert _spread_p(np.full((1, 24), 8.0), 32, 0.25, rng=rng) < 1e-3
    once_and_for_all = np.repeat(4.0 * (rng.random((4, 32)) < 0.25), 1, axis=0)
    assert _spread_p(once_and_for_all, 4, 0.25, rng=rng) < 1e-3


def test_visits_are_whole_or_nan() -> None:
    np.testing.assert_array_equal(visits(np.array([0, 0.5, 1.02, 0.8]), 0.5), [0, 1, 2, np.nan])
    assert np.isnan(visits(np.zeros(2), 0.0)).all()
    np.testing.assert_array_equal(seen(np.array([0, 0.3, 0.3])), [0, 1, 1])
    assert np.isnan(seen(np.array([0, 0.3, 0.6]))).any()


def test_an_implied_bound_reprices_the_claim() -> None:
    claim = Claim()
    same = claim.implied(1.0, confidence=0.95, method="m")
    assert same.lower == claim.epsilon
    assert claim.implied(2.0, confidence=0.95, method="m").lower == Claim(noise_multiplier=2.0).epsilon
    grid = [claim.implied(excess, confidence=0.95, method="m").lower for excess in (0.0, 0.5, 1.0, 3.0, math.inf)]
    assert grid == sorted(grid)
    assert grid[0] == 0
    assert grid[-1] == math.inf


@pytest.mark.parametrize(
    "wrong",
    [
        {"expected_batch_size": 0},
        {"expected_batch_size": 300},
        {"steps": 0},
        {"noise_multiplier": math.nan},
        {"max_grad_norm": math.inf},
        {"delta": 0.0},
    ],
)
def test_claims_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        Claim(**wrong)


class FakeBench:
    def __init__(self, claim: Claim) -> None:
        self.claim, self.error, self.confidence = claim, 0.01, 0.99


def judge(ins: list[float], outs: list[float], claim: Claim | None = None) -> Answer:
    bench = FakeBench(claim or Claim())
    _KNOWN[bench] = Runs(torch.nn.Linear(1, 1), torch.zeros(1), 0, torch.zeros(1), ins, outs)
    return judged(bench, lambda runs, update: update, "it")


def test_runs_are_judged_on_the_half_that_did_not_choose_whichever_way_they_point() -> None:
    for sign in (1.0, -1.0):
        found = judge([sign * (5 + i % 7) for i in range(200)], [sign * (-5 - i % 7) for i in range(200)])
        expected = clopper_pearson(0, 100, 0, 100, delta=1e-5, confidence=0.99)
        assert found.bound is not None
        assert found.bound.lower == pytest.approx(expected.lower)
        assert found.p_value is not None
        assert found.p_value < 1e-6


def test_a_p_value_of_runs_holds_for_a_mechanism_at_its_claim() -> None:
    # Randomised response at exactly the claimed epsilon, the worst there is.
    rng = np.random.default_rng(5)
    claim = Claim(records=256, noise_multiplier=1.0)
    keep = 1 / (1 + math.exp(-claim.epsilon))
    p = []
    for _ in range(300):
        ins, outs = (rng.random(200) < keep), (rng.random(200) < 1 - keep)
        found = judge((ins + 0.0).tolist(), (outs + 0.0).tolist(), claim)
        p.append(found.p_value if found.p_value is not None else 1.0)
    for level in (0.01, 0.05, 0.2):
        assert stats.binomtest(sum(x <= level for x in p), 300, level, alternative="greater").pvalue > 1e-3
    assert min(p) < 0.5  # it looks at all


def test_runs_that_could_show_nothing_are_inconclusive() -> None:
    found = judge([1.0] * 20, [0.0] * 20, Claim(noise_multiplier=0.5))
    assert found.p_value is None
    assert "so many runs could show at most" in found.found
    few = judge([1.0] * 4, [0.0] * 4)
    assert few.p_value is None
    assert "are needed" in few.found


def test_every_file_of_checks_holds_one_check() -> None:
    import pkgutil

    import auditor.debug_dp.checks as folder
    from auditor.debug_dp.check import checks

    assert len(checks()) == len(list(pkgutil.iter_modules(folder.__path__)))
    assert len({check.name for check in checks()}) == len(checks())
    assert all(a.order < b.order for a, b in itertools.pairwise(checks()))
