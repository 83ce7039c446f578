"""The name that somebody probably meant: one wording for plans, policies, data and commands."""

import difflib
from collections.abc import Collection

from reports.untrusted import quoted

MOST_LISTED = 40


def nearest(name: str, known: Collection[str], *, listed: bool = True) -> str:
    """Return the end of a message about a name that is not known.

    Args:
        name: What was given.
        known: Names that there are.
        listed: Whether to list them where none is close.

    Returns:
        "; did you mean 'x'?", or "; known: 'x', 'y'", or nothing.

    Examples:
        >>> nearest("lira2", ["lira", "rmia"])
        "; did you mean 'lira'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f"; did you mean {quoted(close[0])}?"
    if not listed or not known:
        return ""
    more = "" if len(known) <= MOST_LISTED else f" and {len(known) - MOST_LISTED} more"
    return f"; known: {', '.join(quoted(one) for one in sorted(known)[:MOST_LISTED])}{more}"
