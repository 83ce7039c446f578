"""What an audit does not show, said in its report."""

from collections.abc import Sequence

from auditor.evidence.claim_kind import kind_of
from auditor.evidence.run_attack import Evidence
from auditor.subject import AuditSubject
from reports.records.report import AttackStatus


def limitations(subject: AuditSubject, evidence: Sequence[Evidence]) -> list[str]:
    """Say what an audit does not show.

    Args:
        subject: What was audited.
        evidence: What came of each attack.

    Returns:
        One sentence each.
    """
    found = [
        "It shows leaks, never their absence: another attack, or more shadow models, may find more.",
        "Intervals hold for this one model; another run of the same training may leak more or less.",
        f"It measures {_measured(evidence)}, nothing else.",
    ]
    found += subject.description.limitations
    candidates = subject.target.candidates
    copies = len(candidates) - len(set(candidates.row_digests()))
    if copies:
        found.append(f"{copies} candidates repeat another one exactly; such records are not independent questions.")
    if candidates.units is not None:
        found.append("Records of one group were in or out together, and a group counts once, by its highest score.")
    left_out = [entry.attack.title for entry in evidence if entry.status is not AttackStatus.RAN]
    if left_out:
        found.append(f"Not run: {', '.join(left_out)}; what they would have found is not known.")
    found += subject.missing
    if not subject.control and subject.control_reason:
        found.append(f"There is no positive control: {subject.control_reason}.")
    return found


def _measured(evidence: Sequence[Evidence]) -> str:
    kinds = {entry.attack.claims: None for entry in evidence if entry.status is AttackStatus.RAN}
    words = [kind_of(claims).words for claims in kinds]
    if len(words) < 2:
        return words[0] if words else "nothing, since no attack ran"
    return f"{', '.join(words[:-1])} and {words[-1]}"
