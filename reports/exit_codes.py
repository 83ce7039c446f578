"""The exit codes of every command that judges, and what several of them make together."""

import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """What a judging command tells its caller."""

    PASS = 0  # every check holds
    EXCEEDED = 1  # a limit is exceeded or a claim contradicted
    USAGE = 2  # the plan or policy is wrong, or does not fit the report
    INCONCLUSIVE = 3  # the audit could not tell
    INCOMPLETE = 4  # an attack failed or was killed, or a required one did not run
    NOT_COMPARABLE = 5  # the baseline cannot be compared

    @property
    def precedence(self) -> int:
        """Place in the order in which codes win when several hold: 0 wins over all."""
        return PRECEDENCE.index(self)


# A proven failure must not look like a flaky run, and nothing counts where the question itself was wrong.
PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.NOT_COMPARABLE,
    ExitCode.EXCEEDED,
    ExitCode.INCOMPLETE,
    ExitCode.INCONCLUSIVE,
    ExitCode.PASS,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code that wins when several hold: 2, 5, 1, 4, 3, then 0.

    Args:
        codes: Any number of codes; none at all means that nothing was judged, which is inconclusive and never a pass.

    Returns:
        The code to exit with.
    """
    return min(codes, key=lambda code: code.precedence, default=ExitCode.INCONCLUSIVE)
