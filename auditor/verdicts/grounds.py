"""Whether an audit stands on what its owner says: findings on the holdout and on the two sides.

Where the audit draws members by its own coins, or by sealed ones, there is nobody to doubt, and nothing is tested.
"""

from collections.abc import Sequence

import numpy as np

from attacks.capabilities import Capability
from attacks.membership.signals import logit_confidence
from attacks.recorded_models import RecordedShadows
from attacks.shadows import ShadowSource
from attacks.target import Target
from auditor.context import RunContext
from auditor.datasets.two_sides import Crossing, blind_baseline, crossing, nearest_neighbours, reduced
from auditor.evidence.run_attack import Evidence
from auditor.subject import AuditSubject
from auditor.verdicts.epsilon_claims import MORE
from auditor.verdicts.holdout import FEWEST_SHADOWS, POWER, HoldoutFit, SideFit, fit_of_sides
from defenses.randomness import stream
from defenses.records import BoolArray, IntArray, Records
from reports.records.grounds import HOLDOUT, SIDES
from reports.records.report import AttackStatus, Estimate, Finding, Status

SIGNIFICANCE = 0.01
"""Chance with which each of the two findings doubts an honest owner."""

MOST_PER_SIDE = 5000
_FEWEST_PER_SIDE = 10
_CANNOT_PASS = "While that is so, no figure of this audit can pass."


def judge_grounds(subject: AuditSubject, context: RunContext, evidence: Sequence[Evidence]) -> list[Finding]:
    """Test what an owner says about who was a member, as far as data and shadow models can.

    Args:
        subject: What was audited, with the declared truth.
        context: Where it runs.
        evidence: What came of each attack; shadow models are asked only if an attack had them trained.

    Returns:
        One finding on the holdout and one on the two sides, as far as the kind of target takes either on trust. One
        that raises no doubt, or could not be tested, decides nothing.
    """
    findings = []
    if HOLDOUT in subject.description.tested_sides and subject.target.can(Capability.LOGITS):
        findings.append(_holdout(subject, context, evidence))
    if SIDES in subject.description.tested_sides:
        findings.append(_sides(subject.target.candidates, subject.split.included))
    return findings


def _holdout(subject: AuditSubject, context: RunContext, evidence: Sequence[Evidence]) -> Finding:
    count = _shadows_at_hand(subject.target, evidence)
    if count < FEWEST_SHADOWS:
        return _note(
            HOLDOUT,
            "Whether the target was trained on declared non-members was not tested: that needs at least "
            f"{FEWEST_SHADOWS} shadow models, and {count} are at hand.",
        )
    try:
        fit = _fit(subject, context, count)
    except ValueError as error:
        return _note(HOLDOUT, f"Whether the target was trained on declared non-members was not tested: {error}.")
    doubted, sentence = _in_words(fit)
    found = _on_scale(fit, fit.nonmembers if fit.nonmembers_fitted or not fit.members_missed else fit.members)
    if not doubted:
        return _note(HOLDOUT, sentence, found=found)
    return _doubt(HOLDOUT, f"{sentence} {_CANNOT_PASS}", found=found)


def _shadows_at_hand(target: Target, evidence: Sequence[Evidence]) -> int:
    """Return how many shadow models can be asked without training one."""
    if isinstance(target.shadows, RecordedShadows):
        return len(target.shadows.members)
    used = any(entry.status is AttackStatus.RAN and entry.attack.requires.recipe for entry in evidence)
    return target.shadows.planned if used and isinstance(target.shadows, ShadowSource) else 0


def _fit(subject: AuditSubject, context: RunContext, count: int) -> HoldoutFit:
    target, y = subject.target, subject.target.candidates.y
    assert target.shadows is not None
    said = target.logits(target.candidates.x, device=context.place)
    return fit_of_sides(
        logit_confidence(said, y),
        subject.split.included,
        shadows=np.stack([logit_confidence(one.logits, y) for one in target.shadows.each(count)]),
        included=target.shadows.included(count),
        level=1 - SIGNIFICANCE,  # two one-sided tests, one on each side
    )


def _in_words(fit: HoldoutFit) -> tuple[bool, str]:
    """Say whether the declared sides are doubted, and in one sentence why or why not."""
    if not fit.separated:
        return fit.nonmembers_fitted, _in_probability(fit)
    non, members = _as_if(fit.nonmembers, fit), _as_if(fit.members, fit)
    by = f"by what {fit.models} shadow models left out and trained on"
    declared = f"Declared non-members are fitted as if {non} of them had been trained on"
    if fit.swapped:
        return True, f"{declared}, declared members as if {members} had, {by}: the two sides look swapped."
    if fit.nonmembers_fitted:
        return True, (
            f"{declared}, {by}: either non-members were trained on, or the training is not the one that is stated. "
            "Both let attacks look weaker than they are."
        )
    short = f"Declared members are fitted as if only {members} of them had been trained on, {by}"
    if fit.members_doubted:
        return True, (
            f"{short}: either many were not, which dilutes every figure, or the training is not the one that is stated."
        )
    if fit.members_missed:
        return False, f"{short}: the training ended worse than most, or is not as stated, or some were not trained on."
    if fit.nonmembers_missed:
        return False, (
            f"{declared}, {by}, which is surely worse than models trained alike: the training, or where the records "
            "come from, is not as stated."
        )
    seen = f"a share of {_percent(fit.least_seen)} would be seen {_percent(POWER)} of the time"
    return False, f"{declared}, {by}: no doubt, where {seen}."


def _in_probability(fit: HoldoutFit) -> str:
    """Say the same where shadow models fit what they trained on no better than what they left out."""
    side = fit.nonmembers
    beyond = f"{_points(side.value)} ({_level(fit)} {_points(side.low)} to {_points(side.high)})"
    declared = (
        f"The target's probability of the true class of declared non-members is {beyond} points above what "
        f"{fit.models} shadow models give to records that they left out"
    )
    if fit.nonmembers_fitted:
        return f"{declared}: either non-members were trained on, or the training is not the one that is stated."
    return (
        f"{declared}, no doubt; but those fit what they trained on no better, so that a holdout that was trained on "
        "might not be seen."
    )


def _sides(candidates: Records, included: BoolArray) -> Finding:
    rng = stream(0, "two sides", candidates.digest)
    chosen = _subsample(candidates, included, rng)
    records, members = candidates.take(chosen), included[chosen]
    fewest = int(min(members.sum(), (~members).sum()))
    if fewest < _FEWEST_PER_SIDE:
        return _note(SIDES, f"Whether the two sides are alike was not tested: one has only {fewest} independent units.")
    flat = records.x.reshape(len(records), -1)
    x = reduced(flat, seed=int(rng.integers(2**31)))
    neighbours = nearest_neighbours(x)
    every = np.ones(len(members), dtype=np.bool_)
    all_of_them = crossing(neighbours.nearest, members, within=every, rng=rng)
    close = crossing(neighbours.nearest, members, within=neighbours.close, rng=rng)
    each = SIGNIFICANCE / 4  # near-duplicates, too many neighbours across, too few, and the blind baseline
    shown = np.column_stack([x, flat.mean(axis=1), flat.std(axis=1)])
    blind = blind_baseline(shown, records.y, members, level=1 - 2 * each, rng=rng)
    reasons = _reasons(all_of_them, close, blind, each=each)
    looked_at = f"{int(members.sum()):,} members and {int((~members).sum()):,} non-members"
    if reasons:
        return _doubt(SIDES, f"Of {looked_at}: {'; '.join(reasons)}. {_CANNOT_PASS}", found=blind)
    return _note(
        SIDES,
        f"Without the model, {looked_at} look like draws from one source: {_across(all_of_them)}, and a blind "
        f"classifier reaches {_area(blind)}.",
        found=blind,
    )


def _reasons(all_of_them: Crossing, close: Crossing, blind: Estimate, *, each: float) -> list[str]:
    found = []
    if close.p_more <= each:
        found.append(
            f"near-duplicates cross the sides ({close.count:,} of {close.total:,}, {close.expected:,.0f} expected), so "
            "that members and non-members are in part the same records"
        )
    elif all_of_them.p_more <= each:
        found.append(
            f"nearest neighbours are across too often ({_across(all_of_them)}), as where one side is made of the other"
        )
    if all_of_them.p_fewer <= each:
        found.append(
            f"records resemble their own side more than chance allows ({_across(all_of_them)}): the sides come from "
            "different sources, or from groups of records that no owner column names"
        )
    if blind.low is not None and blind.low > 0.5:
        found.append(
            f"a classifier that never sees the model tells members from non-members ({_area(blind)}), so that a "
            "membership figure may be about where records come from"
        )
    return found


def _subsample(candidates: Records, included: BoolArray, rng: np.random.Generator) -> IntArray:
    """Return one record of each unit, and at most 5,000 of a side; the pairs of all records would be too many."""
    first = np.arange(len(candidates))
    if candidates.units is not None:
        first = np.unique(candidates.units, return_index=True)[1]
    mixed = rng.permutation(first)
    sides = [mixed[included[mixed]][:MOST_PER_SIDE], mixed[~included[mixed]][:MOST_PER_SIDE]]
    return np.sort(np.concatenate(sides))


def _across(found: Crossing) -> str:
    return f"{found.count:,} of {found.total:,} nearest neighbours are across, {found.expected:,.0f} expected"


def _area(blind: Estimate) -> str:
    if blind.value is None:
        return f"no AUC ({blind.reason})"
    return f"AUC {blind.value:.3f} ({100 * (blind.level or 0):g}% CI {blind.low:.3f} to {blind.high:.3f})"


def _as_if(side: SideFit, fit: HoldoutFit) -> str:
    return f"{_percent(side.value)} ({_level(fit)} {_percent(side.low)} to {_percent(side.high)})"


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.0f}%"


def _points(probability: float) -> str:
    return f"{100 * probability:.2g}"


def _level(fit: HoldoutFit) -> str:
    return f"{100 * fit.level:g}% prediction interval"


def _on_scale(fit: HoldoutFit, side: SideFit) -> Estimate:
    low, value, high = side.low, side.value, side.high
    if fit.separated:  # a share lies between 0 and 1, whatever the noise
        low, value, high = (min(max(end, 0.0), 1.0) for end in (low, value, high))
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=fit.level,
        method="Student's t prediction interval over shadow models",
        n=fit.models,
        unit="shadow model",
    )


_TITLES = {HOLDOUT: "The holdout", SIDES: "The two sides"}


def _doubt(code: str, sentence: str, *, found: Estimate | None) -> Finding:
    return _finding(code, Status.INCONCLUSIVE, sentence, found=found, counts=True)


def _note(code: str, sentence: str, *, found: Estimate | None = None) -> Finding:
    return _finding(code, Status.INFORMATION, sentence, found=found, counts=False)


def _finding(code: str, status: Status, sentence: str, *, found: Estimate | None, counts: bool) -> Finding:
    return Finding(
        code=code,
        status=status,
        title=_TITLES[code],
        sentence=sentence,
        found=found,
        control_reason="tested without an attack",
        counts=counts,
        more=MORE,
    )
