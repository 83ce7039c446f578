"""In which of two readings a paper's scheme runs."""

import enum


class Mode(enum.StrEnum):
    """A scheme as its text has it, or with the smallest change that makes its guarantee true."""

    LITERAL = "literal"
    REPAIRED = "repaired"
