"""An attacker's claim joined with the truth: from here on, and nowhere before, it is known who was in."""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attacks.protocol import Attack, Claim, MembershipScores, Reconstructions
from attacks.threat_model import Target, expose
from auditor import metrics
from auditor.reconstructed import Reconstructed, compare
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray, IntArray
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
        reconstructed: What its reconstructions, if it made any, say about who was in.
        included: (m,) bool truth about the candidates.
        units: (m,) which candidates are one question, or None where each is its own.
        seconds: Wall-clock time.
    """

    attack: Attack
    required: bool
    status: AttackStatus
    included: BoolArray
    units: IntArray | None = None
    reason: str | None = None
    claim: Claim | None = None
    seconds: float = 0.0
    reconstructed: Reconstructed | None = None

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores (m,) of an attack that ran; a record scores as its most similar reconstruction."""
        if self.reconstructed is not None:
            return self.reconstructed.closest
        if not isinstance(self.claim, MembershipScores):
            raise ValueError(f"attack {self.attack.name!r} did not run: {self.reason}")
        return self.claim.scores

    @property
    def by_unit(self) -> tuple[npt.NDArray[np.float64], BoolArray, str]:
        """Scores and truth per independent unit, and what a unit is called."""
        if self.units is None:
            return self.scores, self.included, "record"
        scores, included = metrics.by_unit(self.scores, self.included, self.units)
        return scores, included, "group of records"


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
        units = target.candidates.units
        return Evidence(attack, required, status, included, units, reason, claim, time.perf_counter() - started)

    try:
        view = expose(target, attack.requires, device=device)
        claim = attack.run(view, rng=rng, on_progress=on_progress)
        if isinstance(claim, Reconstructions):
            reconstructed = compare(claim, target.candidates, included, measure=attack.similarity, rng=rng)
            return replace(outcome(AttackStatus.RAN, claim=claim), reconstructed=reconstructed)
    except NotApplicableError as error:
        return outcome(AttackStatus.NOT_APPLICABLE, str(error))
    except Exception as error:
        logger.debug("attack %s failed", attack.name, exc_info=True)
        return outcome(AttackStatus.FAILED, f"{type(error).__name__}: {error}")
    if len(claim.scores) != len(included):
        reason = f"it returned {len(claim.scores)} scores for {len(included)} candidates"
        return outcome(AttackStatus.FAILED, reason)
    return outcome(AttackStatus.RAN, claim=claim)


def measures(entry: Evidence, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
    """Return the measures of a membership claim over independent units, each with an interval at `level`.

    Args:
        entry: Evidence of an attack that ran.
        level: Confidence of each interval.
        wanted: Names of measures beyond the usual ones, such as "tpr_at_fpr_0.05".
    """
    scores, included, unit = entry.by_unit
    found = {
        metrics.AUC: metrics.auc(scores, included, level=level, unit=unit),
        metrics.ADVANTAGE: metrics.advantage(scores, included, level=level, unit=unit),
    }
    rates = {metrics.measure_name(fpr) for fpr in FALSE_POSITIVE_RATES} | {n for n in wanted if metrics.is_rate(n)}
    for name in sorted(rates, reverse=True):
        fpr = metrics.baseline_of(name)
        found[name] = metrics.tpr_at_fpr(scores, included, fpr=fpr, level=level, unit=unit)
    at_one_percent = found[metrics.measure_name(FALSE_POSITIVE_RATES[0])]
    priors = {metrics.predictive_name(prior) for prior in PRIORS} | {n for n in wanted if metrics.is_predictive(n)}
    for name in sorted(priors, reverse=True):
        prior = metrics.baseline_of(name)
        found[name] = metrics.positive_predictive_value(at_one_percent, fpr=FALSE_POSITIVE_RATES[0], prior=prior)
    return found
