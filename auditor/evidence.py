"""An attacker's claim joined with the truth: from here on, and nowhere before, it is known who was in."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attacks.protocol import Attack, Claim
from attacks.threat_model import Target, expose
from auditor import metrics
from defenses.errors import AuditError, NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray
from reports.record import AttackStatus, Estimate

logger = logging.getLogger(__name__)

FALSE_POSITIVE_RATES = (0.01, 0.001)
PRIORS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Evidence:
    """What came of one attack.

    Attributes:
        attack: The attack as it was set.
        required: Whether the plan named it.
        status: Whether it ran.
        reason: Why it did not, in words.
        claim: What it said, if it ran.
        included: (m,) bool truth about the candidates.
        seconds: Wall-clock time.
    """

    attack: Attack
    required: bool
    status: AttackStatus
    included: BoolArray
    reason: str | None = None
    claim: Claim | None = None
    seconds: float = 0.0

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores (m,) of an attack that ran."""
        if self.claim is None:
            raise ValueError(f"attack {self.attack.name!r} did not run: {self.reason}")
        return self.claim.scores


def gather(
    attack: Attack,
    target: Target,
    included: BoolArray,
    *,
    required: bool,
    rng: np.random.Generator,
    device: str,
    on_progress: OnProgress = silent,
) -> Evidence:
    """Run one attack on a target and join what it says with the truth.

    An attack that cannot be run here is NOT_APPLICABLE with its reason; one that breaks is FAILED, so that a report
    never mistakes silence for safety. A run that is interrupted is not caught.

    Args:
        attack: The attack.
        target: What it is run on; it sees only its own view of it.
        included: (m,) bool truth.
        required: Whether the plan named it.
        rng: Its randomness.
        device: Where the target answers.
        on_progress: Called while it works.
    """
    started = time.perf_counter()

    def outcome(status: AttackStatus, reason: str | None = None, claim: Claim | None = None) -> Evidence:
        return Evidence(attack, required, status, included, reason, claim, time.perf_counter() - started)

    try:
        view = expose(target, attack.requires, device=device)
        claim = attack.run(view, rng=rng, on_progress=on_progress)
    except NotApplicableError as error:
        return outcome(AttackStatus.NOT_APPLICABLE, str(error))
    except (AuditError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        logger.exception("attack %s failed", attack.name)
        return outcome(AttackStatus.FAILED, f"{type(error).__name__}: {error}")
    if len(claim.scores) != len(included):
        reason = f"it returned {len(claim.scores)} scores for {len(included)} candidates"
        return outcome(AttackStatus.FAILED, reason)
    return outcome(AttackStatus.RAN, claim=claim)


def measures(scores: npt.NDArray[np.float64], included: BoolArray, *, level: float) -> Mapping[str, Estimate]:
    """Return every measure of a membership claim, each with an interval at `level`."""
    found = {
        metrics.AUC: metrics.auc(scores, included, level=level),
        metrics.ADVANTAGE: metrics.advantage(scores, included, level=level),
    }
    for fpr in FALSE_POSITIVE_RATES:
        found[metrics.measure_name(fpr)] = metrics.tpr_at_fpr(scores, included, fpr=fpr, level=level)
    at_one_percent = found[metrics.measure_name(FALSE_POSITIVE_RATES[0])]
    for prior in PRIORS:
        found[metrics.predictive_name(prior)] = metrics.positive_predictive_value(
            at_one_percent, fpr=FALSE_POSITIVE_RATES[0], prior=prior
        )
    return found
