"""An attacker's claim joined with the truth: from here on, and nowhere before, it is known who was in."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attacks.protocol import Attack, Claim, ExtractedModel, Guesses, MembershipScores, Predicates, Reconstructions
from attacks.similarity import similarities
from attacks.threat_model import expose
from auditor.evidence.attack_cache import KeptClaims
from auditor.evidence.attribute_inference import Guessed, join_guesses
from auditor.evidence.mean_similarity import mean_similarity, similarity_gap
from auditor.evidence.model_extraction import Agreement, join_copies
from auditor.evidence.reconstruction import Reconstructed, compare
from auditor.evidence.singling_out import SingledOut, join_predicates
from auditor.files.paths import without_paths
from auditor.reasons import LONGEST
from auditor.reasons import reason as why
from auditor.statistics import membership
from auditor.subject import Question
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.randomness import stream
from defenses.records import BoolArray, IntArray
from reports.records.report import AttackStatus, Estimate
from reports.untrusted import printable

logger = logging.getLogger(__name__)

FALSE_POSITIVE_RATES = (0.01, 0.001)
PRIORS = (0.1, 0.01, 0.001)


Joined = Reconstructed | Guessed | Agreement | SingledOut


@dataclass(frozen=True)
class Evidence:
    """What came of one attack.

    Attributes:
        attack: The attack as it was set.
        required: Whether the plan named it.
        status: Whether it ran.
        question: What it was run on, with the truth.
        reason: Why it did not run, in words.
        claim: What it said, if it ran.
        seconds: Wall-clock time.
        joined: What claims other than membership scores say once they are compared with the truth.
        reused: Whether the claim was kept by an earlier run.
    """

    attack: Attack
    required: bool
    status: AttackStatus
    question: Question
    reason: str | None = None
    claim: Claim | None = None
    seconds: float = 0.0
    joined: Joined | None = None
    reused: bool = False

    @property
    def included(self) -> BoolArray:
        """Truth (m,) about the candidates."""
        return self.question.included

    @property
    def units(self) -> IntArray | None:
        """Which candidates (m,) are one question, or None where each is its own."""
        return self.question.target.candidates.units

    @property
    def reconstructed(self) -> Reconstructed | None:
        """What its reconstructions, if it made any, say about who was in."""
        return self.joined if isinstance(self.joined, Reconstructed) else None

    @property
    def ranks(self) -> bool:
        """Whether it orders candidates by how likely they were in."""
        return isinstance(self.claim, MembershipScores | Reconstructions)

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores (m,) of an attack that ranks; a record scores as its most similar reconstruction."""
        if self.reconstructed is not None:
            return self.reconstructed.closest
        if not isinstance(self.claim, MembershipScores):
            raise ValueError(
                f"attack {self.attack.name!r} ranks no candidates: {self.reason or 'it claims other things'}"
            )
        return self.claim.scores

    @property
    def by_unit(self) -> tuple[npt.NDArray[np.float64], BoolArray, str]:
        """Scores and truth per independent unit, and what a unit is called."""
        if self.units is None:
            return self.scores, self.included, "record"
        scores, included = membership.by_unit(self.scores, self.included, self.units)
        return scores, included, "group of records"


def gather(
    attack: Attack,
    question: Question,
    *,
    required: bool,
    rng: np.random.Generator,
    device: str,
    on_progress: OnProgress = silent,
    kept: KeptClaims | None = None,
    names: tuple[str, ...] = (),
) -> Evidence:
    """Run one attack on a target and join what it says with the truth.

    An attack that cannot be run here is NOT_APPLICABLE with its reason; one that breaks is FAILED, so that a report
    never mistakes silence for safety. A run that is interrupted is not caught.

    Args:
        attack: The attack.
        question: What it is run on; it sees only its own view of it.
        required: Whether the plan named it.
        rng: Its randomness.
        device: Where the target answers.
        on_progress: Called while it works.
        kept: Claims that were made already; one that is there is taken instead.
        names: What else the claim depends on, for its name there.
    """
    started, before = time.perf_counter(), 0.0

    def outcome(status: AttackStatus, reason: str | None = None, claim: Claim | None = None) -> Evidence:
        return Evidence(attack, required, status, question, reason, claim, before or time.perf_counter() - started)

    try:
        view = expose(question.target, attack.requires, device=device)
        key = "" if kept is None else kept.key(attack, question, *names, device=device)
        there = None if kept is None else kept.find(key)
        if there is not None:
            claim, before = there
        else:
            claim = attack.run(view, rng=rng, on_progress=on_progress)
            if kept is not None:
                kept.keep(key, claim, time.perf_counter() - started)
        joined = _joined(attack, claim, question, rng=stream(0, "join", attack.name, *names), device=device)
    except NotApplicableError as error:
        return outcome(AttackStatus.NOT_APPLICABLE, printable(without_paths(str(error)), longest=LONGEST))
    except Exception as error:
        logger.debug("attack %s failed", attack.name, exc_info=True)
        return outcome(AttackStatus.FAILED, why(error))
    if isinstance(claim, MembershipScores) and len(claim.scores) != len(question.included):
        reason = f"it returned {len(claim.scores)} scores for {len(question.included)} candidates"
        return outcome(AttackStatus.FAILED, reason)
    return replace(outcome(AttackStatus.RAN, claim=claim), joined=joined, reused=there is not None)


def chosen(attack: Attack, questions: Sequence[Question]) -> Question:
    """Return the first question whose target offers what an attack needs, or the first of all."""
    fitting = (one for one in questions if not attack.requires.missing_in(one.target.offers))
    return next(fitting, questions[0])


def _joined(
    attack: Attack, claim: Claim, question: Question, *, rng: np.random.Generator, device: str
) -> Joined | None:
    target, included = question.target, question.included
    if isinstance(claim, Reconstructions):
        victims = question.victims
        measure = attack.similarity if attack.similarity in similarities(target.candidates.kind) else None
        return compare(claim, target.candidates, included, measure=measure, rng=rng, victims=victims)
    if isinstance(claim, Guesses):
        return join_guesses(claim, target, included, question.victims)
    if isinstance(claim, ExtractedModel):
        return join_copies(claim, target, device=device)
    return (
        join_predicates(claim, included, rng=rng, units=target.candidates.units)
        if isinstance(claim, Predicates)
        else None
    )


def measures(entry: Evidence, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
    """Return the measures of a claim over independent units, each with an interval at `level`.

    Args:
        entry: Evidence of an attack that ran.
        level: Confidence of each interval.
        wanted: Names of measures beyond the usual ones, such as "tpr_at_fpr_0.05".
    """
    if isinstance(entry.joined, Guessed | Agreement | SingledOut):
        return entry.joined.measures(level=level)
    scores, included, unit = entry.by_unit
    found = {
        membership.AUC: membership.auc(scores, included, level=level, unit=unit),
        membership.ADVANTAGE: membership.advantage(scores, included, level=level, unit=unit),
    }
    rates = {membership.measure_name(fpr) for fpr in FALSE_POSITIVE_RATES}
    rates |= {name for name in wanted if membership.is_rate(name)}
    for name in sorted(rates, reverse=True):
        fpr = membership.baseline_of(name)
        found[name] = membership.tpr_at_fpr(scores, included, fpr=fpr, level=level, unit=unit)
    if entry.reconstructed is not None:
        alike = {membership.SIMILARITY: mean_similarity, membership.SIMILARITY_GAP: similarity_gap}
        found |= {
            name: measure(entry.reconstructed, scores, included, level=level, unit=unit)
            for name, measure in alike.items()
            if name in wanted
        }
    at_one_percent = found[membership.measure_name(FALSE_POSITIVE_RATES[0])]
    priors = {membership.predictive_name(prior) for prior in PRIORS}
    priors |= {name for name in wanted if membership.is_predictive(name)}
    for name in sorted(priors, reverse=True):
        prior = membership.baseline_of(name)
        found[name] = membership.positive_predictive_value(at_one_percent, fpr=FALSE_POSITIVE_RATES[0], prior=prior)
    return found
