"""Runs all checks against one implementation, shares the error between them, and says what follows."""

import enum
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from auditor.debug_dp.bench import Harness
from auditor.debug_dp.check import Answer, Check, checks
from auditor.debug_dp.claim import Claim
from auditor.debug_dp.implementation import Implementation, UserCodeError
from auditor.debug_dp.p_values import holm
from auditor.epsilon.bound import EpsilonBound
from defenses.errors import NotApplicableError, PlanError
from defenses.progress import OnProgress, Progress, silent
from reports.exit_codes import ExitCode, worst
from reports.suggestions import nearest

BUDGET = 100.0


class Status(enum.Enum):
    """What became of one check."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"
    CRASHED = "crashed"


_CODES = {
    Status.HOLDS: ExitCode.PASS,
    Status.VIOLATED: ExitCode.EXCEEDED,
    Status.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Status.CRASHED: ExitCode.INCOMPLETE,
}


@dataclass(frozen=True)
class Result:
    """What one check said.

    Attributes:
        name: Of the check.
        title: What people read.
        status: What became of it.
        sentence: What was found; names the invariant that fails.
        p_value: By itself, or None if it could not tell.
        adjusted_p_value: Corrected by Holm for all checks that could tell.
        bound: On epsilon, where one follows.
        seconds: That it took.
    """

    name: str
    title: str
    status: Status
    sentence: str
    p_value: float | None
    adjusted_p_value: float | None
    bound: EpsilonBound | None
    seconds: float


@dataclass(frozen=True)
class Battery:
    """All results on one implementation.

    Attributes:
        implementation: What was tested.
        claim: What its runs were priced as.
        error: Probability of calling sound code faulty, over all checks.
        results: In the order in which the checks ran.
        seconds: In all.
    """

    implementation: Implementation
    claim: Claim
    error: float
    results: tuple[Result, ...]
    seconds: float

    @property
    def violated(self) -> tuple[Result, ...]:
        """The checks whose invariant fails."""
        return tuple(result for result in self.results if result.status is Status.VIOLATED)

    @property
    def exit_code(self) -> ExitCode:
        """0 no invariant failed, 1 one did, 4 the code broke, 3 a check could not tell."""
        return worst(_CODES[result.status] for result in self.results if result.status in _CODES)


def run_battery(
    implementation: Implementation,
    claim: Claim | None = None,
    *,
    budget: float = BUDGET,
    runs: int = 400,
    error: float = 0.05,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    rng: np.random.Generator | None = None,
    on_progress: OnProgress = silent,
) -> Battery:
    """Run the checks, cheapest first, and correct them for their number by Holm's method.

    Args:
        implementation: The code under test; it is run.
        claim: What the repeated runs are priced as.
        budget: Seconds, above 0; a check that would begin after them is inconclusive.
        runs: The most runs on each side of a repeated audit, at least 1.
        error: Probability in (0, 1) of calling sound code faulty, over all checks.
        only: Names of the checks to run; all by default.
        skip: Names of checks to leave out.
        rng: The auditor's own randomness; from the operating system by default. The code under test draws its own.
        on_progress: Called before each check.

    Raises:
        PlanError: If there is no check of a given name, or none is left.
        ValueError: If a number is out of range.

    Examples:
        >>> run_battery(find_implementation("mine.dp:train_step")).exit_code  # doctest: +SKIP
        <ExitCode.PASS: 0>
    """
    _check_numbers(budget=budget, runs=runs, error=error)
    chosen = _chosen(only, skip)
    began = time.monotonic()
    bench = Harness(
        implementation,
        claim or Claim(),
        rng=rng or np.random.default_rng(),
        error=error / len(chosen),
        deadline=began + budget,
        runs=runs,
        on_progress=on_progress,
    )
    answers: list[tuple[type[Check], Answer | Result, float]] = []
    for number, check in enumerate(chosen):
        on_progress(Progress("checks", number, len(chosen), check.title))
        start = time.monotonic()
        answer = _answer(check, bench)
        answers.append((check, answer, time.monotonic() - start))
    on_progress(Progress("checks", len(chosen), len(chosen)))
    told = [answer.p_value for _, answer, _ in answers if isinstance(answer, Answer) and answer.p_value is not None]
    adjusted = iter(holm(told))
    results = tuple(_result(check, answer, seconds, adjusted, error) for check, answer, seconds in answers)
    return Battery(implementation, bench.claim, error, results, time.monotonic() - began)


def _check_numbers(*, budget: float, runs: int, error: float) -> None:
    if not (budget > 0 and math.isfinite(budget)):
        raise ValueError(f"budget is {budget} seconds; it must be above 0 and finite")
    if runs < 1:
        raise ValueError(f"runs is {runs}; it must be at least 1")
    if not 0 < error < 1:
        raise ValueError(f"error is {error}; it must lie strictly between 0 and 1, for example 0.05")


def _chosen(only: Collection[str], skip: Collection[str]) -> list[type[Check]]:
    known = [check.name for check in checks()]
    for name in (*only, *skip):
        if name not in known:
            raise PlanError(f"there is no check {name!r}{nearest(name, known)}")
    chosen = [check for check in checks() if (not only or check.name in only) and check.name not in skip]
    if not chosen:
        raise PlanError("no check is left to run; skip fewer")
    return chosen


def _answer(check: type[Check], bench: Harness) -> Answer | Result:
    def without(status: Status, sentence: str) -> Result:
        return Result(check.name, check.title, status, sentence, None, None, None, 0.0)

    if check.needs_training and not bench.implementation.trains:
        return without(Status.NOT_APPLICABLE, "a step draws no lots of its own; hand over a training function")
    if bench.seconds_left <= 0:
        return without(Status.INCONCLUSIVE, "the budget was used up before this check; give more with --budget")
    try:
        return check().run(bench)
    except NotApplicableError as error:
        return without(Status.NOT_APPLICABLE, str(error))
    except UserCodeError as error:
        return without(Status.CRASHED, str(error))


def _result(
    check: type[Check], answer: Answer | Result, seconds: float, adjusted: Iterator[float], error: float
) -> Result:
    if isinstance(answer, Result):
        return answer
    if answer.p_value is None:
        return Result(check.name, check.title, Status.INCONCLUSIVE, answer.found, None, None, answer.bound, seconds)
    corrected = next(adjusted)
    fails = corrected <= error
    sentence = f"fails: {check.invariant}; {answer.found}" if fails else answer.found
    status = Status.VIOLATED if fails else Status.HOLDS
    return Result(check.name, check.title, status, sentence, answer.p_value, corrected, answer.bound, seconds)
