"""What an audit takes on trust: all that its owner says and the audit did not see, one statement each."""

from collections.abc import Sequence

from attacks.recorded_models import RecordedShadows
from attacks.shadows import ShadowSource
from auditor.plan.plan import Plan
from auditor.plan.sections import Checkpoint
from auditor.subject import Subject
from reports.records.grounds import HOLDOUT, SIDES, Trusted
from reports.records.report import Finding

_NOT_COMMITTED = "That the sealed file is the one from before the training: the plan names no commitment."


def taken_on_trust(plan: Plan, subject: Subject, findings: Sequence[Finding]) -> list[Trusted]:
    """Return what was taken on trust, by the kind of target and the plan.

    A target that the audit trains replaces nearly all of it by its own coins and its own training; planted canaries
    replace who was a member and how that was decided.

    Args:
        plan: What was asked.
        subject: What was audited.
        findings: What was judged; those on the holdout and on the two sides say what was tested of it.

    Returns:
        One statement each, the weightiest first.
    """
    tested = " and ".join(
        finding.code for finding in findings if finding.code in (HOLDOUT, SIDES) and finding.found is not None
    )
    if plan.data is not None:
        found = _trained(plan)
    elif plan.checkpoint is not None and plan.checkpoint.canaries is not None:
        found = _planted(plan.checkpoint, tested)
    else:
        found = [Trusted(what=_who(plan), tested=tested or None), *_coins(plan, subject)]
    return [*found, *_beside(plan, subject)]


def _trained(plan: Plan) -> list[Trusted]:
    found = [Trusted(what="That the model to be released is trained on such records and by such a recipe as this one.")]
    if plan.seed is not None:
        said = "That nobody uses the seed, which stands in the plan: who knows it knows coins and noise."
        found.append(Trusted(what=said))
    return found


def _planted(entry: Checkpoint, tested: str) -> list[Trusted]:
    found = [
        Trusted(
            what="That the training used every planted row, and never the sealed coins; the commitment shows only that "
            "the coins were fixed before.",
            tested=tested or None,
        )
    ]
    return found if entry.commitment is not None else [*found, Trusted(what=_NOT_COMMITTED)]


def _who(plan: Plan) -> str:
    if plan.released is not None:
        return "That the release was made from the declared members, all of them, and from no declared non-member."
    return "Who was a member: that the target was trained on the declared members, all of them, and on no non-member."


def _coins(plan: Plan, subject: Subject) -> list[Trusted]:
    entry = plan.checkpoint or plan.scores
    if entry is None or entry.inclusion != "independent_coins":
        return []
    members, total = int(subject.split.included.sum()), len(subject.split.included)
    return [
        Trusted(
            what="That each record was a member or not by a fair coin of its own, tossed before the training.",
            tested=f"only that {members:,} members of {total:,} are what fair coins give",
        )
    ]


def _beside(plan: Plan, subject: Subject) -> list[Trusted]:
    """Return what is taken on trust beside who was a member."""
    found, target = [], subject.target
    if plan.data is None:
        found.append(Trusted(what=_which(plan)))
    if isinstance(target.shadows, RecordedShadows):
        found.append(Trusted(what="That the recorded shadow models were trained like the target, each on its members."))
    elif plan.data is None and isinstance(target.shadows, ShadowSource):
        found.append(Trusted(what="That the target was trained as the plan says, as the shadow models were."))
    if plan.data is None and target.population is not None:
        tested = "only that none of them is a candidate" if plan.scores is None else None
        found.append(Trusted(what="That no population record was trained on.", tested=tested))
    if plan.claim is not None:
        said = f"The claimed epsilon {plan.claim.epsilon:g}: nothing of it is proved, and an attack can only refute it."
        found.append(Trusted(what=said))
    if target.candidates.units is None:
        said = "That records are independent: no column says whose they are or which are near-duplicates."
        found.append(Trusted(what=said))
    if not getattr(target.candidates.kind, "public_domain", True):
        found.append(Trusted(what="That value ranges and categories, which were read from the data, are public."))
    return found


def _which(plan: Plan) -> str:
    if plan.scores is not None:
        return "That the recorded outputs are those of the model in use."
    return "That these are the records that are released." if plan.released else "That these weights are those in use."
