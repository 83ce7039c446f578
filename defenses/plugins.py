"""What is found rather than listed: the classes of a folder's files, and those that installed packages name."""

import importlib
import importlib.metadata
import inspect
import pkgutil

from defenses.errors import PluginError


def classes_in(folder: str, kind: type) -> list[type]:
    """Return the concrete subclasses of a class that the modules of a package define, in the order of the modules.

    The package is imported when this is called, so that whoever looks into a folder does not depend on its files.

    Args:
        folder: Name of the package, such as "defenses.schemes".
        kind: What each must be a subclass of.
    """
    found: list[type] = []
    for module in pkgutil.walk_packages(importlib.import_module(folder).__path__, f"{folder}."):
        loaded = importlib.import_module(module.name)
        found += [
            member
            for _, member in inspect.getmembers(loaded, inspect.isclass)
            if issubclass(member, kind) and not inspect.isabstract(member) and member.__module__ == module.name
        ]
    return found


def load_plugins(group: str, kind: type, *, taken: set[str]) -> list[type]:
    """Return the classes that installed packages name in an entry-point group.

    Args:
        group: Name of the group.
        kind: What each must be a concrete subclass of; has a class attribute `name`.
        taken: Names that are there already; no plug-in may have one of them.

    Raises:
        PluginError: If one cannot be loaded or is something else; names the entry point and its package.
    """
    found: list[type] = []
    names = set(taken)
    for point in importlib.metadata.entry_points(group=group):
        package = "an unknown package" if point.dist is None else f"package {point.dist.name} {point.dist.version}"
        what = f"entry point {point.name!r} of {package} ({group}: {point.value})"
        remedy = "mend or uninstall that package"
        try:
            loaded = point.load()
        except Exception as error:  # whatever that code does
            raise PluginError(f"{what} cannot be loaded ({type(error).__name__}: {error}); {remedy}") from error
        if not inspect.isclass(loaded) or not issubclass(loaded, kind) or inspect.isabstract(loaded):
            raise PluginError(f"{what} is no complete {kind.__name__} class; {remedy}")
        name = getattr(loaded, "name", None)
        if not isinstance(name, str) or not name.isprintable() or name in names:
            raise PluginError(f"{what} is called {name!r:.80}, which is taken or no name; {remedy}")
        names.add(name)
        found.append(loaded)
    return found
