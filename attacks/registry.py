"""Every attack by name: each file of an attack folder that defines an `Attack`, and installed entry points."""

import functools
import importlib
import inspect
import pkgutil

import attacks.extraction
import attacks.gradient_leakage
import attacks.inference
import attacks.membership
import attacks.reconstruction
import attacks.synthetic_data
from attacks.protocol import Attack
from defenses.plugins import load_plugins

ENTRY_POINTS = "privacy_auditor.attacks"
FOLDERS = (
    attacks.membership,
    attacks.reconstruction,
    attacks.gradient_leakage,
    attacks.synthetic_data,
    attacks.inference,
    attacks.extraction,
)


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
    found += load_plugins(ENTRY_POINTS, Attack, taken={attack.name for attack in found})
    return {attack.name: attack for attack in sorted(found, key=lambda attack: attack.name)}
