"""What an audit takes on trust: all that its owner says and the audit did not see, one statement each."""

from collections.abc import Sequence

from auditor.subject import AuditSubject
from reports.records.grounds import HOLDOUT, SIDES, Trusted
from reports.records.report import Finding


def taken_on_trust(subject: AuditSubject, findings: Sequence[Finding]) -> list[Trusted]:
    """Return what was taken on trust: what the kind of target says, then what holds for records of any target.

    Args:
        subject: What was audited.
        findings: What was judged; those on the holdout and on the two sides say what was tested of it.

    Returns:
        One statement each, the weightiest first.
    """
    sides = " and ".join(
        finding.code for finding in findings if finding.code in (HOLDOUT, SIDES) and finding.found is not None
    )
    found = [
        Trusted(what=entry.what, tested=(sides or None) if entry.about_sides else entry.tested)
        for entry in subject.description.on_trust
    ]
    candidates = subject.target.candidates
    if candidates.units is None:
        said = "That records are independent: no column says whose they are or which are near-duplicates."
        found.append(Trusted(what=said))
    if not getattr(candidates.kind, "public_domain", True):
        found.append(Trusted(what="That value ranges and categories, which were read from the data, are public."))
    return found
