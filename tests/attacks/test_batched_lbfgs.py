"""L-BFGS side by side: against each row by itself, against SciPy, and rows that end in their own time."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from attacks.gradient_leakage.batched_lbfgs import minimise


def test_rows_are_minimised_as_each_would_be_by_itself() -> None:
    rng = np.random.default_rng(0)
    q = torch.from_numpy(rng.normal(size=(5, 20, 12)))
    matrices = q.transpose(1, 2) @ q + 0.1 * torch.eye(12)
    centres = torch.from_numpy(rng.normal(size=(5, 12)))

    def objective(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pulled = torch.einsum("vij,vj->vi", matrices[rows], x - centres[rows])
        return ((x - centres[rows]) * pulled).sum(1) / 2, pulled

    found = minimise(objective, torch.zeros(5, 12, dtype=torch.float64), evaluations=100, tolerance=1e-20)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, centres, atol=1e-8, rtol=0)
    assert int(found.evaluations.max()) < 60
    alone = minimize(
        lambda x: ((x - centres[0].numpy()) @ matrices[0].numpy() @ (x - centres[0].numpy())) / 2, np.zeros(12)
    )
    assert found.x[0].numpy() == pytest.approx(alone.x, abs=1e-3)


def test_no_row_waits_for_the_line_search_of_another() -> None:
    """Each call evaluates every row once; rows that are hard do not cost the easy ones evaluations."""
    weights = torch.logspace(0, 5, 12, dtype=torch.float64)[:, None] ** (torch.arange(6, dtype=torch.float64) / 5)
    calls = []

    def objective(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(rows))
        return (weights[rows] * x**2).sum(1) / 2, weights[rows] * x

    start = torch.ones(12, 6, dtype=torch.float64)
    found = minimise(objective, start, evaluations=200, tolerance=1e-12)
    assert bool(found.converged.all())
    assert len(calls) == int(found.evaluations.max())
    assert int(found.evaluations.min()) < 0.5 * len(calls)
    assert calls[-1] < 12  # who is done is asked no more
    for row in range(12):

        def single(x: torch.Tensor, rows: torch.Tensor, row: int = row) -> tuple[torch.Tensor, torch.Tensor]:
            return (weights[row] * x**2).sum(1) / 2, weights[row] * x

        alone = minimise(single, start[row : row + 1], evaluations=200, tolerance=1e-12)
        assert abs(int(alone.evaluations[0]) - int(found.evaluations[row])) <= 2
        assert bool(alone.converged[0])


def test_a_row_without_a_way_down_ends() -> None:
    def objective(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope = torch.where(rows[:, None] == 0, -x, x)  # the first row is told to go uphill
        return 1 + (x**2).sum(1) / 2, slope

    found = minimise(objective, torch.ones(2, 3, dtype=torch.float64), evaluations=200, tolerance=0.0)
    assert int(found.evaluations[0]) < 60
    assert torch.equal(found.x[0], torch.ones(3, dtype=torch.float64))
    assert float(found.x[1].abs().max()) < 1e-6
