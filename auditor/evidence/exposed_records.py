"""The members that an attack is most sure of, told so that their owner can find them and nobody else is helped to."""

import hashlib
import hmac
import math

import numpy as np

from auditor.evidence.run_attack import Evidence
from auditor.statistics import membership
from reports.records.report import ExposedRecord

EXPOSED = 10


def exposed(entry: Evidence, key: bytes, *, level: float) -> list[ExposedRecord]:
    """Return the members that an attack is most sure of, under keyed hashes and in the order of these.

    Anybody with the model can compute the scores of records of their own. So neither scores, ranks nor labels are told,
    which would single out the record that has them, only a coarse limit on the false alarms at which each one is found.

    Args:
        entry: Evidence of an attack that ranks.
        key: Secret key of the hashes.
        level: Confidence of all limits together.
    """
    members = np.flatnonzero(entry.included)
    first = members[np.argsort(-entry.scores[members], kind="stable")][:EXPOSED]
    records = entry.question.target.candidates
    outside = np.sort(entry.scores[~entry.included])
    found = []
    for place, digest in zip(first, records.take(first).row_digests(), strict=True):
        above = int(len(outside) - np.searchsorted(outside, entry.scores[place], side="left"))
        high = membership.rate(above, len(outside), level=1 - (1 - level) / len(first)).high
        found.append(
            ExposedRecord(
                record=hmac.new(key, digest, hashlib.sha256).hexdigest()[:16],
                false_alarms_at_most=1.0 if high is None else rounded_up(high),
                level=level,
            )
        )
    return sorted(found, key=lambda one: one.record)


def rounded_up(share: float) -> float:
    """Return the next of 1, 2 or 5 times a power of ten that is not below a share, at most 1.

    Examples:
        >>> rounded_up(0.0312), rounded_up(0.2), rounded_up(0.7)
        (0.05, 0.2, 1.0)
    """
    if not share > 1e-9:
        return 1e-9
    power = math.floor(math.log10(share))
    steps = (float(f"{step}e{power}") for step in (1, 2, 5, 10))
    return min(1.0, next((step for step in steps if step >= share), 1.0))


def keyed(key: bytes, what: str, digest: str) -> str:
    """Return a digest that only who has the key can compute: HMAC-SHA-256 (hex) of a digest and what it is of."""
    return hmac.new(key, f"{what} {digest}".encode(), hashlib.sha256).hexdigest()
