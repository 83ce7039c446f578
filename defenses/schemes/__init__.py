"""Every privacy scheme, one file each; a file that defines a `Defense` is found, and so are installed entry points."""

import functools
import importlib
import inspect
import pkgutil

from defenses.defense import Defense
from defenses.plugins import load_plugins

ENTRY_POINTS = "privacy_auditor.schemes"


@functools.cache
def schemes() -> dict[str, type[Defense]]:
    """Return every scheme by its name in plans: the files of this folder, then third parties' entry points."""
    found: list[type[Defense]] = []
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        loaded = importlib.import_module(module.name)
        found += [
            member
            for _, member in inspect.getmembers(loaded, inspect.isclass)
            if issubclass(member, Defense) and not inspect.isabstract(member) and member.__module__ == module.name
        ]
    found += load_plugins(ENTRY_POINTS, Defense, taken={scheme.name for scheme in found})
    return {scheme.name: scheme for scheme in sorted(found, key=lambda scheme: scheme.name)}
