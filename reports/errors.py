"""The exceptions of the reports package."""


class ReportError(Exception):
    """A record or policy cannot be read; the message says what is wrong and what would be right."""
