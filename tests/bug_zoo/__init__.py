"""Broken DP-SGD as people write it: plain PyTorch, each file one mistake over `correct`.

`python -m tests.bug_zoo` measures how often each check of `auditor debug-dp` flags each of them.
"""

import importlib
import pkgutil

CORRECT = ("correct:train_step", "correct:train")


def names():
    """Every broken implementation as MODULE:FUNCTION inside this package."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}") if not module.name.startswith("_") else None
        if hasattr(loaded, "SEEN_BY"):
            found.append(f"{module.name}:{'train' if hasattr(loaded, 'train') else 'train_step'}")
    return found


def seen_by(name):
    """The checks that are meant to flag it."""
    return importlib.import_module(f"{__name__}.{name.partition(':')[0]}").SEEN_BY


def described(name):
    """Its mistake in one sentence."""
    return importlib.import_module(f"{__name__}.{name.partition(':')[0]}").__doc__.splitlines()[0]
