"""`auditor list`: what a plan can name, read from the source files, so that no torch is loaded."""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from auditor.cli.errors import Debug, guarded
from auditor.cli.terminal import say


def list_all(debug: Debug = False) -> None:
    """List data sets, architectures, schemes and attacks that a plan can name, and types of canaries."""
    with guarded(debug=debug):
        for title, entries in sections().items():
            say(title)
            width = max(len(name) for name in entries) + 2
            for name, text in entries.items():
                say(f"  {name:<{width}}{text}")
            say("")


def sections() -> dict[str, dict[str, str]]:
    """Return title -> name -> one line, for everything that a plan can name."""
    from auditor.datasets import names

    root = Path(__file__).parents[2]
    attacks = described_classes(root / "attacks", "paper")
    if importlib.util.find_spec("art") is None:
        attacks = {name: paper for name, paper in attacks.items() if not name.startswith("art_")}
    attacks |= _plugins("privacy_auditor.attacks")
    schemes = described_classes(root / "defenses" / "schemes", "paper") | _plugins("privacy_auditor.schemes")
    return {
        "Data sets ([data] source = ...)": names(),
        "Architectures ([model] architecture = ...)": described_factories(root / "defenses" / "architectures.py"),
        "Schemes ([scheme] name = ...)": dict(sorted(schemes.items())),
        "Attacks ([[attacks]] name = ...)": dict(sorted(attacks.items())),
        "Canaries (auditor plant --kind ...)": described_classes(root / "auditor" / "canaries" / "types", "summary"),
    }


def described_classes(folder: Path, attribute: str) -> dict[str, str]:
    """Return the name of each class below a folder, and the text that it gives as an attribute.

    Args:
        folder: Every Python file below it is read as text; none is imported.
        attribute: Which class attribute holds the text. Classes without a constant `name` are passed over.
    """
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                constants = dict(_constants(node))
                if "name" in constants and attribute in constants:
                    found[constants["name"]] = constants[attribute]
    return dict(sorted(found.items()))


def _constants(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            target = statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(statement.value.value, str):
                yield target.id, statement.value.value


def described_factories(path: Path) -> dict[str, str]:
    """Return the networks that `FACTORIES` of a file names, and the first line of each factory's docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    lines = {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in functions}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "FACTORIES":
            assert isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): lines[value.id] for key, value in pairs}  # type: ignore[arg-type, attr-defined]
    return {}


def _plugins(group: str) -> dict[str, str]:
    """Return what installed packages add, by the name of the entry point; the package is not loaded."""
    return {
        point.name: f"of package {point.dist.name}" if point.dist is not None else "of another package"
        for point in importlib.metadata.entry_points(group=group)
    }
