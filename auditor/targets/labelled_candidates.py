"""The candidates of a checkpoint audit with the truth about them, wherever they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from defenses.records import BoolArray, Inclusion, Records


@dataclass(frozen=True)
class Given:
    """Candidates and truth.

    Attributes:
        candidates: (m) in an order that tells nothing.
        included: (m,) bool: who was in.
        inclusion: How that was decided.
        probability: Chance of being in; for FIXED, the share that was.
        population: Records outside all training, or None.
        beside: Records that were in for sure and are no candidates, or None where they are not known.
        commitment: Commitment to the secret that decided who was in, or why there is none.
        remarks: Remarks for the provenance, by name.
    """

    candidates: Records
    included: BoolArray
    inclusion: Inclusion
    probability: float
    population: Records | None = None
    beside: Records | None = None
    commitment: str = "none: the target was trained elsewhere"
    remarks: Mapping[str, Any] = field(default_factory=dict)
