"""Fixtures: the sample reports, and a way to change one place of one."""

from collections.abc import Callable
from typing import Any

import pytest
from report_samples import inconclusive_data, leaky_data, private_data, undecided_data

from reports.records.report import Report


@pytest.fixture
def leaky() -> Report:
    """A model without protection: LiRA far above the limit, the loss threshold undecided."""
    return Report.model_validate(leaky_data())


@pytest.fixture
def private() -> Report:
    """A DP-SGD model: within the limit, its claim not contradicted."""
    return Report.model_validate(private_data())


@pytest.fixture
def incomplete() -> Report:
    """An audit in which one attack was killed."""
    return Report.model_validate(undecided_data())


@pytest.fixture
def inconclusive() -> Report:
    """An audit whose interval straddles the limit, without a control."""
    return Report.model_validate(inconclusive_data())


@pytest.fixture
def change() -> Callable[..., Report]:
    """change(report, path, value): the report with one place of its data replaced."""

    def changed(report: Report, path: str, value: Any) -> Report:
        data = report.model_dump()
        place: Any = data
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in parents:
            place = place[part]
        place[last] = value
        return Report.model_validate(data)

    return changed
