"""How often the same thing was audited: the count outlives other file names, a few other records and the work folder.

An owner who repeats an audit until it is green should be seen to do so. The list of attempts therefore lies beside the
user's key and not in a work folder, and a subject is recognised by its model or by its records, not by a path.
"""

import datetime
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from filelock import FileLock

from auditor import subject as audited
from auditor.plan.terms import Terms
from auditor.workspace import SECRETS, Workspace
from defenses.authentication import state_folder
from defenses.engine.storage import Folder

SKETCH = 256
"""Hashes that stand for a set of records; two sketches tell the share of records in common to within 0.06."""

ALIKE = 0.5
"""Sets of records that share at least this much of their union are about the same subject."""

LOST = (
    "The list of attempts that this work folder was used with is gone or was replaced, so earlier attempts are not "
    "counted."
)

_NAME = "attempts"


@dataclass(frozen=True)
class AttemptKey:
    """What an attempt is about.

    Attributes:
        model: Digest of the weights, or of the recorded outputs.
        recipe: Digest of network, training and scheme, as far as they are known.
        records: Digests of the candidates, one each, in any order.
    """

    model: str
    recipe: str
    records: Sequence[bytes]


@dataclass(frozen=True)
class Attempt:
    """Where an audit stands in the list.

    Attributes:
        number: From 1; the same run again keeps its number.
        since: When the list was begun, ISO 8601 in UTC.
        lost: Whether the work folder was used with another list before.
    """

    number: int
    since: str
    lost: bool


@dataclass
class _Entry:
    """All runs about one subject; models and sketches of every one of them are remembered."""

    recipe: str
    models: list[str] = field(default_factory=list)
    sketches: list[list[int]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def subject_of(terms: Terms, subject: audited.AuditSubject) -> AttemptKey:
    """Return what an audit is about; paths and names of files are no part of it."""
    identities = subject.description.identities
    records = subject.target.candidates.row_digests() if identities is None else identities
    return AttemptKey(subject.target.digest, terms.recipe_digest, records)


def run_of(terms: Terms, subject: audited.AuditSubject) -> str:
    """Return what tells two audits of one subject apart: the seed, the target that was drawn or given, the records."""
    return f"{terms.seed} {subject.target.digest} {subject.target.candidates.digest}"


def count_attempt(workspace: Workspace, subject: AttemptKey, run: str) -> Attempt:
    """Enter a run into the user's list of attempts and say which one about its subject it is.

    A run is about a subject that the list knows if it is about the same weights, or if it has the same recipe and at
    least half of all records in common. Processes take turns.

    Args:
        workspace: Its key keeps the list; it remembers which list it was used with.
        subject: What is audited.
        run: What tells two runs about one subject apart: the drawn or given target, and the records.

    Returns:
        The attempt.

    Source of the sketch: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches".
    """
    folder = state_folder()
    storage = Folder(folder, workspace.authenticator, durable=True)
    with FileLock(folder / f"{_NAME}.lock", mode=0o600):
        identity, since, entries = _read(storage)
        entry = _about(entries, subject, _sketch(subject.records, workspace.authenticator.key))
        if run not in entry.runs:
            entry.runs.append(run)
        content = {"identity": identity, "since": since, "entries": [asdict(one) for one in entries]}
        storage.write(json.dumps(content).encode(), _NAME)
        lost = _lost(workspace, identity)
    return Attempt(entry.runs.index(run) + 1, since, lost)


def _read(storage: Folder) -> tuple[str, str, list[_Entry]]:
    kept = storage.read(_NAME)
    if kept is None:
        return secrets.token_hex(16), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), []
    content = json.loads(kept)
    return content["identity"], content["since"], [_Entry(**one) for one in content["entries"]]


def _lost(workspace: Workspace, identity: str) -> bool:
    """Say whether the work folder knows another list, and let it know this one where it knows none."""
    marker = workspace.kept(SECRETS, durable=True)
    known = marker.read("list-of-attempts")
    if known is None:
        marker.write(identity.encode(), "list-of-attempts")
    return known is not None and known.decode() != identity


def _about(entries: list[_Entry], subject: AttemptKey, sketch: list[int]) -> _Entry:
    """Return the entry about a subject, a new one if there is none, with what is new of it added."""
    found = next((one for one in entries if subject.model in one.models), None)
    if found is None:
        same = (one for one in entries if one.recipe == subject.recipe)
        found = next((one for one in same if any(_shared(sketch, other) >= ALIKE for other in one.sketches)), None)
    if found is None:
        found = _Entry(subject.recipe)
        entries.append(found)
    if subject.model not in found.models:
        found.models.append(subject.model)
    if sketch not in found.sketches:
        found.sketches.append(sketch)
    return found


def _sketch(records: Sequence[bytes], key: bytes) -> list[int]:
    """Return the smallest keyed hashes of a set of records, in order."""
    hashes = {int.from_bytes(hashlib.blake2b(one, digest_size=8, key=key).digest()) for one in records}
    return sorted(hashes)[:SKETCH]


def _shared(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the estimated share of the union of two sets of records that is in both."""
    union = sorted({*one, *other})[:SKETCH]
    both = set(one) & set(other)
    return sum(value in both for value in union) / max(len(union), 1)
