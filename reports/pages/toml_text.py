"""A plan as TOML text, so that a reader can copy it out of a report and run it again."""

import json
import math
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# JSON leaves these as they are inside a string; TOML does not allow them.
_NOT_IN_TOML = re.compile("[\x7f]")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    return _NOT_IN_TOML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        return repr(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(str(name))} = {_value(item)}" for name, item in _present(value))
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value if item is not None) + "]"
    return _string(str(value))


def _present(table: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, table[name]) for name in sorted(table) if table[name] is not None]


def toml_text(plan: dict[str, Any]) -> str:
    """Write nested tables as TOML; a key without a value (None) is left out, because TOML has no such value.

    Args:
        plan: Tables, lists, strings, numbers and truth values.

    Returns:
        TOML text with sorted keys, the plain values of a table before its sub-tables.
    """
    return "\n".join(_table(plan, ())).strip("\n") + "\n"


def _table(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(name)} = {_value(item)}" for name, item in _present(table) if not _is_nested(item)]
    for name, item in _present(table):
        if isinstance(item, dict):
            header = ".".join(_key(part) for part in (*path, name))
            lines += ["", f"[{header}]", *_table(item, (*path, name))]
        elif _is_nested(item):
            header = ".".join(_key(part) for part in (*path, name))
            for entry in item:
                lines += ["", f"[[{header}]]", *_table(entry, (*path, name))]
    return lines


def _is_nested(item: Any) -> bool:
    tables = isinstance(item, list) and bool(item) and all(isinstance(entry, dict) for entry in item)
    return isinstance(item, dict) or tables
