"""Digests of source code: what was made by other code is not taken for what this code would make."""

import functools
import hashlib
import importlib
import inspect
from pathlib import Path


@functools.cache
def digest_of_folders(*folders: Path) -> str:
    """Return SHA-256 (hex) over the Python files of folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def digest_of_training(network: str | None = None, scheme: str = __name__) -> str:
    """Return a digest of the code that trains: all of `defenses`, and a network or scheme from elsewhere.

    Args:
        network: Module of the network (`Architecture.module`) where it is the user's own; it is imported.
        scheme: Module of the scheme.
    """
    digest = hashlib.sha256(digest_of_folders(Path(__file__).parents[1]).encode())
    for module in (*([] if network is None else [network]), scheme):
        digest.update(inspect.getsource(importlib.import_module(module)).encode())
    return digest.hexdigest()
