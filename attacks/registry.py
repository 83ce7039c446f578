"""Every attack by name: each file of `attacks` that defines an `Attack`, and installed entry points."""

import functools
import importlib.util

from attacks.protocol import Attack
from defenses.plugins import classes_in, load_plugins

ENTRY_POINTS = "privacy_auditor.attacks"


@functools.cache
def registered_attacks() -> dict[str, type[Attack]]:
    """Return every attack by its name in plans."""
    found: list[type[Attack]] = classes_in("attacks", Attack)
    if importlib.util.find_spec("art") is None:  # the extra `art` is not installed
        found = [attack for attack in found if not attack.__module__.startswith("attacks.art.")]
    found += load_plugins(ENTRY_POINTS, Attack, taken={attack.name for attack in found})
    return {attack.name: attack for attack in sorted(found, key=lambda attack: attack.name)}
