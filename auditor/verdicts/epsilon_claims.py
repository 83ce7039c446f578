"""Promises against what was shown: the best bound over all attacks, what single steps imply, and both verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.one_run_bound import OneRunAudit, one_run_from_scores
from auditor.evidence.run_attack import Evidence
from auditor.plan.terms import Terms
from auditor.subject import AuditSubject
from auditor.verdicts.judge import judge_claim
from auditor.white_box.prior_aware import PriorAware
from auditor.white_box.step_bounds import StepAudit
from defenses.guarantee import Guarantee, Neighboring, Unaccounted, Unit
from defenses.records import BoolArray, Inclusion, IntArray
from reports.measures import AUC, measure
from reports.pages.wording import exact_percent
from reports.records.report import Estimate, Finding, Status

CLAIM, PROOF, STEP, REBUILT = "PA001", "PA002", "PA003", "PA004"
MORE = "docs/findings.md"

Measures = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class EpsilonEvidence:
    """The best lower bound over all attacks, or why there is none."""

    audit: OneRunAudit | None
    attack: str | None = None
    reason: str | None = None


def confidence_of_claims(plan: Terms) -> float:
    """Return the confidence of each bound on epsilon, such that all claims together get half of the error."""
    return 1 - (1 - plan.confidence) / (2 * (1 + (plan.white_box is not None) + (plan.prior_aware is not None)))


def best_epsilon_evidence(evidence: Sequence[Evidence], subject: AuditSubject, plan: Terms) -> EpsilonEvidence:
    """Return the best one-run bound over the attacks that ran, corrected for having the choice.

    Where each coin chose one of a pair, the pair is the trial: which of the two scores is higher is the guess, and the
    bound is about replacing a record.
    """
    split = subject.split
    if split.inclusion not in (Inclusion.INDEPENDENT, Inclusion.SWAPPED):
        return EpsilonEvidence(
            None,
            reason=f"membership was {split.inclusion.value}; a bound on epsilon needs fair coins",
        )
    ran = [entry for entry in evidence if entry.ranking is not None and of_the_model(entry, subject)]
    if not ran:
        return EpsilonEvidence(None, reason="no attack that ranks records ran")
    audits = []
    for entry in ran:
        scores, included = entry.by_unit[:2] if split.pair is None else _by_pair(entry, split.pair)
        audit = one_run_from_scores(
            scores,
            included,
            inclusion=Inclusion.INDEPENDENT,  # of the coins, whatever their two sides are
            delta=plan.judged_delta,
            confidence=confidence_of_claims(plan),
            probability=split.probability,
            comparisons=len(ran),
        )
        audits.append((audit, entry.attack.name))
    best, name = max(audits, key=lambda found: found[0].bound.lower)
    if subject.target.candidates.units is not None:  # whole groups were in or out together
        best = replace(best, bound=replace(best.bound, unit=Unit.USER))
    if split.pair is not None:
        best = replace(best, bound=replace(best.bound, neighboring=Neighboring.REPLACE_ONE))
    return EpsilonEvidence(best, attack=name)


def _by_pair(entry: Evidence, pair: IntArray) -> tuple[npt.NDArray[np.float64], BoolArray]:
    """Return, for each pair of units, how much higher the first scores than the second, and whether it was in."""
    scores, included, _ = entry.by_unit
    if entry.units is not None:
        pair = pair[np.unique(entry.units, return_index=True)[1]]
    order = np.argsort(pair, kind="stable")
    first, second = order[pair[order] >= 0].reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        ahead = scores[first] - scores[second]
    return np.where(np.isnan(ahead), 0.0, ahead), included[first]  # two infinities of one sign tell nothing


def of_the_model(entry: Evidence, subject: AuditSubject) -> bool:
    """Say whether an attack was run on the target itself, whose candidates were in by the coins of the split."""
    return entry.question.target is subject.target


def beats_guessing(estimate: Estimate, name: str = AUC) -> bool:
    """Say whether an attack surely beats guessing; never where it is not known what guessing reaches."""
    baseline = measure(name).baseline
    return baseline is not None and estimate.low is not None and estimate.low > baseline


def _sight(found: Measures, control: Measures) -> tuple[bool, str]:
    """Say whether any attack was seen to find a leak, and in words where: the bound is the best of all of them."""
    for tables, where in ((control, "the control"), (found, "this very model")):
        ranked = [(name, table[AUC]) for name, table in tables.items() if AUC in table]
        seen = [(area.value or 0.0, name) for name, area in ranked if beats_guessing(area)]
        if seen:
            best, name = max(seen)
            return True, f"{name} reaches AUC {best:.3f} on {where}"
    return False, "no attack surely beats guessing, here or on a model known to leak"


def judge_claims(
    shown: EpsilonEvidence, subject: AuditSubject, plan: Terms, found: Measures, control: Measures
) -> list[Finding]:
    """Judge what is promised; an attack that finds nothing even on a leaky model cannot call a promise consistent."""
    findings = []
    sighted, sight = _sight(found, control)
    for code, title, promise in (
        (CLAIM, "Claimed epsilon", subject.claimed),
        (PROOF, "Proved epsilon", subject.proved),
    ):
        if promise is None or (isinstance(promise, Guarantee) and promise.epsilon == float("inf")):
            continue  # nothing finite is promised, so there is nothing to contradict
        if promise is subject.proved and _same(subject.claimed, promise):
            continue  # one statement, judged once
        if isinstance(promise, Unaccounted):
            findings.append(
                Finding(
                    code=code, status=Status.INFORMATION, title=title, more=MORE,
                    sentence=f"No epsilon can be proved for this run: {promise.reason}.",
                )
            )  # fmt: skip
            continue
        if shown.audit is None:
            findings.append(
                Finding(
                    code=code, status=Status.NOT_COMPARABLE, title=title, measure="epsilon", limit=promise.epsilon,
                    sentence=f"Epsilon {promise.epsilon:g} could not be tested: {shown.reason}.", more=MORE,
                )
            )  # fmt: skip
            continue
        judged = judge_claim(shown.audit.bound, promise)
        if judged.status is Status.CONSISTENT and not sighted and plan.control.enabled:
            said = f"{judged.sentence} But {sight}: their silence says nothing."
            judged = replace(judged, status=Status.INCONCLUSIVE, sentence=said)
        findings.append(
            Finding(
                code=code,
                status=judged.status,
                title=title,
                sentence=judged.sentence,
                attack=shown.attack,
                measure="epsilon",
                limit=promise.epsilon,
                found=_one_sided(shown.audit.bound, n=shown.audit.guesses, unit="guessed record"),
                control_reason=sight,
                more=MORE,
            )
        )
    return findings


def judge_steps(implied: StepAudit, subject: AuditSubject) -> list[Finding]:
    """Judge what is claimed and what is proved by what single steps imply.

    A bound above a promise contradicts clipping or noise, or the price that was put on them, not the run.
    """
    promises = {"claimed": subject.claimed, "proved": subject.proved}
    if subject.proved is not None and _same(subject.claimed, subject.proved):
        del promises["claimed"]  # one statement, judged once
    findings = []
    for which, promise in promises.items():
        if not isinstance(promise, Guarantee) or promise.epsilon == float("inf"):
            continue
        judged = judge_claim(implied.gaussian, promise, said="Gradient canaries imply")
        findings.append(
            Finding(
                code=STEP,
                status=judged.status,
                title=f"Clipping and noise of single steps, against what is {which}",
                sentence=judged.sentence,
                measure="epsilon",
                limit=promise.epsilon,
                found=_one_sided(implied.gaussian, n=implied.trials, unit="trial"),
                more=MORE,
            )
        )
    return findings


def judge_reconstruction(found: PriorAware) -> Finding:
    """Judge the bound on reconstruction by how often the added record was named."""
    assert found.success.value is not None
    low, confidence = found.success.low or 0.0, round(found.success.level or 0.0, 5)
    sentence = (
        f"Who knows all other records and sees every step names the added one of {found.candidates} in "
        f"{found.success.value:.1%} of {found.success.n} trained models, surely in {math.floor(1000 * low) / 10:.1f}% "
        f"({exact_percent(confidence)} confidence); the scheme allows {found.bound:.1%}, and guessing gives "
        f"{1 / found.candidates:.1%}"
    )
    if low > found.bound:
        status, sentence = (
            Status.VIOLATED,
            f"{sentence}: the bound is contradicted, so clipping or noise is not as stated.",
        )
    elif found.least_shown <= found.bound:
        status, sentence = Status.INCONCLUSIVE, f"{sentence}: so few trials could not have contradicted that."
    else:
        status, sentence = Status.CONSISTENT, f"{sentence}: no contradiction found."
    return Finding(
        code=REBUILT,
        status=status,
        title="Bound on reconstruction",
        sentence=sentence,
        measure="reconstruction_success",
        limit=found.bound,
        found=found.success,
        more=MORE,
    )


def _same(claimed: Guarantee | None, proved: Guarantee | Unaccounted) -> bool:
    """Say whether a proof restates the claim: the same terms, and epsilon up to what calibration leaves over."""
    return (
        claimed is not None
        and isinstance(proved, Guarantee)
        and (claimed.delta, claimed.neighboring, claimed.unit) == (proved.delta, proved.neighboring, proved.unit)
        and abs(claimed.epsilon - proved.epsilon) <= 0.01 * claimed.epsilon
    )


def _one_sided(bound: EpsilonBound, *, n: int, unit: str) -> Estimate:
    """Return a bound as an estimate: the true epsilon lies at or above `low`, nothing is known above it."""
    return Estimate(
        value=bound.lower,
        low=bound.lower,
        high=float("inf"),
        level=bound.confidence,
        method=bound.method,
        n=n,
        unit=unit,
    )
