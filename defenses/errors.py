"""The exceptions raised on purpose: every message names the value, the allowed range and the remedy."""


class AuditError(Exception):
    """Root of the tree; the command line prints it as one sentence and exits with 2."""


class DataError(AuditError):
    """Records cannot be found, read, or used as they are."""


class CheckpointError(AuditError):
    """A checkpoint cannot be read safely, or does not fit the architecture."""


class PlanError(AuditError):
    """A plan asks for something that does not exist or does not fit together."""


class PluginError(AuditError):
    """An installed package offers a scheme or an attack that cannot be used."""


class TrainingError(AuditError):
    """Training cannot go on: diverged weights, or an architecture that the scheme cannot train."""


class NotDisclosedError(AuditError):
    """An attack asked its view for something that the threat model does not disclose."""


class NotApplicableError(AuditError):
    """An attack cannot be run on this target; the report names it with this reason."""
