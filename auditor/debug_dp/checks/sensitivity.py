"""How far one record can move a step, with the noise off."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from auditor.debug_dp.bench import TOLERANCE, Harness
from auditor.debug_dp.check import Answer, Check
from auditor.debug_dp.crafted import HUGE, joined, linear, natural
from auditor.debug_dp.implementation import StepSettings, UserCodeError
from auditor.debug_dp.noise_width import widest_noise
from auditor.epsilon.bound import EpsilonBound

INPUTS = 64


@dataclass(frozen=True)
class Case:
    """A lot and the record that joins it."""

    what: str
    x: Tensor
    y: Tensor
    record: Tensor
    label: int
    first: bool = False


@dataclass(frozen=True)
class Sensitivity(Check):
    """Add outliers, opposing and zero-gradient records to lots, and measure how far the quiet update moves.

    A sound step moves by at most max_grad_norm / expected_batch_size whatever the lot and whatever joins it. Records
    that oppose the rest show clipping of averages and of micro-batches, which orthogonal ones do not; a zero gradient
    shows thresholds taken from the lot; an outlier shows a missing clip.
    """

    name: ClassVar[str] = "sensitivity"
    title: ClassVar[str] = "Reach of one record in a step"
    invariant: ClassVar[str] = "one record moves the update by at most max_grad_norm / expected_batch_size"
    order: ClassVar[int] = 30

    def run(self, bench: Harness) -> Answer:
        """Measure every case at two clipping norms; any excess is a fault, there is no chance in it."""
        worst, what, wavering, broken, bound = 0.0, "", 0, None, None
        for norm in (0.5, 3.0):
            dials = StepSettings(max_grad_norm=norm)
            allowed = bench.contribution(dials)
            for case in _cases(bench):
                try:
                    moved = _reach(bench, case, dials, allowed)
                except UserCodeError as error:
                    broken = error  # one kind of lot may be refused; if all are, the code is broken
                    continue
                if moved is None:
                    wavering += 1
                elif moved > worst:
                    worst, what, at = moved, f"{case.what} at max_grad_norm {norm:g}", (case, dials)
        if broken is not None and not what and not wavering:
            raise broken
        excess = worst > 1 + TOLERANCE
        if not excess and wavering:
            return Answer(
                None, "the same lot gives different updates without noise, so the reach of a record cannot be measured"
            )
        if excess:
            bound = _bound(bench, *at, worst)
        return Answer(
            p_value=0.0 if excess else 1.0,
            found=f"{what or 'no record'} moves the update {worst:.4g} times as far as one record may"
            + (f" (other lots could not be tried: {broken})" if broken else ""),
            bound=bound,
        )


def _reach(bench: Harness, case: Case, dials: StepSettings, allowed: float) -> float | None:
    """Return how far the record moves the update over what is allowed, or None if the same lot moves it as much."""
    model = linear(INPUTS)
    after = bench.moved(model, *joined(case.x, case.y, case.record, case.label, first=case.first), dials).flat
    if not len(case.x):
        return float(after.norm()) / allowed
    before, again = (bench.moved(model, case.x, case.y, dials).flat for _ in range(2))
    if float((again - before).norm()) > TOLERANCE * allowed:
        return None
    return float((after - before).norm()) / allowed


def _bound(bench: Harness, case: Case, dials: StepSettings, reach: float) -> EpsilonBound | None:
    """Return what the reach implies against the noise that the same lots get."""
    more = joined(case.x, case.y, case.record, case.label, first=case.first)
    try:
        width = widest_noise(bench, linear(INPUTS), (case.x, case.y) if len(case.x) else more, more, dials)
    except UserCodeError:
        return None
    if width is None:
        return None
    return bench.claim.implied(
        reach / (1 + TOLERANCE) / width if width else float("inf"),
        confidence=bench.confidence,
        method="largest reach of a record, against the noise on the same lot",
        assumption="The other records of that lot are in every lot, and the noise is Gaussian.",
    )


def _cases(bench: Harness) -> Iterator[Case]:
    x, y = natural(7, INPUTS, rng=bench.rng)
    direction = torch.nn.functional.normalize(torch.from_numpy(bench.rng.standard_normal(INPUTS)).float(), dim=0)
    nothing, none = torch.zeros(0, INPUTS), torch.zeros(0, dtype=torch.long)
    same = direction.repeat(7, 1) * 100
    for first in (False, True):
        where = "first" if first else "last"
        yield Case(f"an outlier that comes {where} among ordinary records", x, y, HUGE * direction, 1, first)
        yield Case(f"an outlier that comes {where} among small gradients", 1e-3 * x, y, HUGE * direction, 1, first)
        yield Case(f"a record that opposes one other and comes {where}", same[:1], y[:1], -300 * direction,
                   int(y[0]), first)  # fmt: skip
        yield Case(f"a record that opposes all others and comes {where}", same, torch.zeros_like(y),
                   -HUGE * 10 * direction, 0, first)  # fmt: skip
        yield Case(f"a zero-gradient record that comes {where}", x, y, torch.zeros(INPUTS), 0, first)
    yield Case("one more copy of records that are all alike", same, torch.zeros_like(y), 100 * direction, 0)
    yield Case("an outlier alone", nothing, none, HUGE * direction, 0)
    yield Case("an ordinary record alone", nothing, none, x[0], int(y[0]))
