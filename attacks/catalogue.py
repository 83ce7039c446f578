"""Every attack by name: each file of an attack folder that defines an `Attack`, and installed entry points."""

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil

import attacks.inference
import attacks.membership
import attacks.reconstruction
from attacks.protocol import Attack

ENTRY_POINTS = "privacy_auditor.attacks"
FOLDERS = (attacks.membership, attacks.reconstruction, attacks.inference)


@functools.cache
def catalogue() -> dict[str, type[Attack]]:
    """Return every attack by its name in plans."""
    found: list[type[Attack]] = []
    for folder in FOLDERS:
        for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}."):
            loaded = importlib.import_module(module.name)
            found += [
                member
                for _, member in inspect.getmembers(loaded, inspect.isclass)
                if issubclass(member, Attack) and not inspect.isabstract(member) and member.__module__ == module.name
            ]
    found += [point.load() for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    return {attack.name: attack for attack in sorted(found, key=lambda attack: attack.name)}
