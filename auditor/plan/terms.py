"""What an audit is asked about its target, whatever kind of target that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditor.plan.sections import Control, Limit, PriorAware, WhiteBox


@dataclass(frozen=True)
class Terms:
    """The part of a plan that holds once the target is built: limits, confidence, and what identifies the plan.

    Attributes:
        title: Of the audit.
        document: The plan as its record shows it.
        digest: SHA-256 (hex) of the plan's content.
        subject_digest: SHA-256 (hex) of what is audited, without limits, title or seed.
        recipe_digest: SHA-256 (hex) of network, recipe and scheme, without the data.
        seed: The plan's seed, or None where the run's randomness is secret.
        limits: Thresholds on what attacks may find.
        slices: Parts of the candidates that are looked at by themselves.
        control: What the plan says of the positive control.
        white_box: The audit of steps that is asked for, if any.
        prior_aware: The prior-aware reconstruction that is asked for, if any.
        confidence: Of all findings together, in (0.5, 1).
        judged_delta: Delta at which epsilon is shown.
    """

    title: str
    document: Mapping[str, Any]
    digest: str
    subject_digest: str
    recipe_digest: str
    seed: int | None
    limits: tuple[Limit, ...]
    slices: tuple[str, ...]
    control: Control
    white_box: WhiteBox | None
    prior_aware: PriorAware | None
    confidence: float
    judged_delta: float
