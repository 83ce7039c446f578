"""What an audit rests on: codes of findings that question it, and what was taken on trust."""

from reports.records.estimate import Strict

HOLDOUT, SIDES = "PA020", "PA021"
GROUNDS = (HOLDOUT, SIDES)
"""Findings about who was a member at all; while one of them is inconclusive, no other figure can pass."""


class Trusted(Strict):
    """One thing that the audit was told and did not see.

    `tested` says how far the audit could check it; null if it could not at all.
    """

    what: str
    tested: str | None = None
