"""What a target may disclose, one thing at a time, and what each implies."""

import enum
from collections.abc import Iterable


class Capability(enum.StrEnum):
    """One thing that a target may disclose.

    `RECORDS` are the candidates themselves, not only what is said of them; `GRADIENTS` what participants of a training
    sent; `SYNTHETIC` records that were released in place of the real ones.
    """

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    WEIGHTS = "weights"
    RECORDS = "records"
    GRADIENTS = "gradients"
    SYNTHETIC = "synthetic"


_IMPLIES = {
    Capability.WEIGHTS: (Capability.LOGITS,),
    Capability.LOGITS: (Capability.PROBABILITIES,),
    Capability.PROBABILITIES: (Capability.LABELS,),
    Capability.LABELS: (),
    Capability.RECORDS: (),
    Capability.GRADIENTS: (),
    Capability.SYNTHETIC: (),
}


def implied_capabilities(capabilities: Iterable[Capability]) -> frozenset[Capability]:
    """Return the capabilities together with everything that they imply."""
    found: set[Capability] = set()
    waiting = list(capabilities)
    while waiting:
        capability = waiting.pop()
        if capability not in found:
            found.add(capability)
            waiting += _IMPLIES[capability]
    return frozenset(found)
