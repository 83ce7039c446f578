"""Lower bounds on epsilon: pure functions of what an attack got right.

Examples:
    >>> from auditor.epsilon import one_run
    >>> round(one_run(1000, 1000, 700, delta=1e-5, confidence=0.95).lower, 2)
    0.73
"""

from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.credible_bound import joint_credible as bayesian
from auditor.epsilon.error_counts import bound_from_runs as many_runs
from auditor.epsilon.gaussian_bound import gaussian_dp
from auditor.epsilon.one_run_bound import clopper_pearson, one_run
from auditor.epsilon.one_run_fdp_bound import one_run_fdp

__all__ = ["EpsilonBound", "bayesian", "clopper_pearson", "gaussian_dp", "many_runs", "one_run", "one_run_fdp"]
