"""Every privacy scheme, one file each; a file that defines a `Defense` is found, and so are installed entry points."""

import functools

from defenses.defense import Defense
from defenses.plugins import classes_in, load_plugins

ENTRY_POINTS = "privacy_auditor.schemes"


@functools.cache
def registered_schemes() -> dict[str, type[Defense]]:
    """Return every scheme by its name in plans: the files of this folder, then third parties' entry points."""
    found: list[type[Defense]] = classes_in(__name__, Defense)
    found += load_plugins(ENTRY_POINTS, Defense, taken={scheme.name for scheme in found})
    return {scheme.name: scheme for scheme in sorted(found, key=lambda scheme: scheme.name)}
