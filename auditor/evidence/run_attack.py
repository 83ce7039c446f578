"""An attacker's claim joined with the truth: from here on, and nowhere before, it is known who was in."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attacks.protocol import Attack, Claim
from attacks.view import expose
from auditor.evidence.attack_cache import KeptClaims
from auditor.evidence.claim_kind import ClaimError, Joined, kind_of
from auditor.evidence.ranking import Ranking
from auditor.files.paths import without_paths
from auditor.reasons import LONGEST
from auditor.reasons import reason as why
from auditor.subject import AttackTarget
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.randomness import stream
from defenses.records import BoolArray, IntArray
from reports.records.report import AttackStatus, Estimate
from reports.untrusted import printable

logger = logging.getLogger(__name__)


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
        joined: The claim joined with the truth, if it ran.
        reused: Whether the claim was kept by an earlier run.
    """

    attack: Attack
    required: bool
    status: AttackStatus
    question: AttackTarget
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
    def ranking(self) -> Ranking | None:
        """How it orders candidates by how likely they were members; None where it does not, or did not run."""
        return None if self.joined is None else self.joined.ranking

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores (m,) of an attack that ranks; raises ValueError of one that does not."""
        return self._ranked().scores

    @property
    def by_unit(self) -> tuple[npt.NDArray[np.float64], BoolArray, str]:
        """Scores and truth per independent unit, and what a unit is called; raises ValueError without a ranking."""
        return self._ranked().by_unit

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the measures of the claim; see `Joined.measures`. Raises ValueError where the attack did not run."""
        if self.joined is None:
            raise ValueError(f"attack {self.attack.name!r} did not run: {self.reason}")
        return self.joined.measures(level=level, wanted=wanted)

    def _ranked(self) -> Ranking:
        if self.ranking is None:
            raise ValueError(
                f"attack {self.attack.name!r} ranks no candidates: {self.reason or 'it claims other things'}"
            )
        return self.ranking


def gather(
    attack: Attack,
    question: AttackTarget,
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
        drawn = stream(0, "join", attack.name, *names)
        joined = kind_of(type(claim)).join(claim, question, attack=attack, rng=drawn, device=device)
    except NotApplicableError as error:
        return outcome(AttackStatus.NOT_APPLICABLE, printable(without_paths(str(error)), longest=LONGEST))
    except ClaimError as error:
        return outcome(AttackStatus.FAILED, str(error))
    except Exception as error:
        logger.debug("attack %s failed", attack.name, exc_info=True)
        return outcome(AttackStatus.FAILED, why(error))
    return replace(outcome(AttackStatus.RAN, claim=claim), joined=joined, reused=there is not None)


def chosen(attack: Attack, questions: Sequence[AttackTarget]) -> AttackTarget:
    """Return the first question whose target offers what an attack needs, or the first of all."""
    fitting = (one for one in questions if not attack.requires.missing_in(one.target.offers))
    return next(fitting, questions[0])
