"""Files as a campaign against the readers makes them: bytes of a valid one changed, or one value of it replaced."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

PIECES = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m", b"[" * 3000, b"{" * 3000, b"9" * 5000, b"1979-05-27", b"nan",
    b"inf", b"Infinity", b"-1e999", b"18446744073709551616", b'"', b"'''", b"\n", b"=", b"\\ud800", b"\\u0000",
    b"a." * 300,
)  # fmt: skip


@st.composite
def mutations(draw: DrawFn, valid: bytes) -> bytes:
    """Change a valid file in one to four places: cut, repeat, overwrite or insert bytes."""
    found = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.integers(0, 64)))
        kind = draw(st.sampled_from(("cut", "end", "repeat", "piece", "bytes")))
        if kind == "cut":
            del found[start:end]
        elif kind == "end":
            del found[start:]
        elif kind == "repeat":
            found[start:start] = found[start:end] * draw(st.integers(1, 20))
        elif kind == "piece":
            found[start:end] = draw(st.sampled_from(PIECES))
        else:
            found[start:end] = draw(st.binary(max_size=8))
    return bytes(found)


def replaced(valid: Any, nasty: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Documents with one to three values replaced by a nasty one, dropped, or moved to another key."""
    return _changed(valid, lambda value: nasty, shape=True)


def alike(valid: Any, *, texts: SearchStrategy[str], numbers: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Documents with one to six values replaced by a nasty one of the same type, so that most of them still load."""

    def nasty(value: Any) -> SearchStrategy[Any]:
        if isinstance(value, list):
            return st.sampled_from(([], value[:1], value * 2))
        if isinstance(value, dict):
            return st.sampled_from(({}, value, None))
        if isinstance(value, bool):
            return st.just(not value)
        return texts if isinstance(value, str) else st.none() if value is None else numbers

    return _changed(valid, nasty, shape=False)


@st.composite
def _changed(draw: DrawFn, valid: Any, nasty: Callable[[Any], SearchStrategy[Any]], *, shape: bool) -> Any:
    found = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3 if shape else 6))):
        places = list(_places(found))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("value", "value", "value", "drop", "rename", "again"))) if shape else "value"
        if kind == "value":
            holder[key] = copy.deepcopy(draw(nasty(holder[key])))  # the samples are shared
        elif kind == "drop":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from((f"{key}s", key.upper(), "x" * 3000, "\x1b[2J", "", "name")))] = holder.pop(key)
        elif kind == "again" and isinstance(holder, list):
            holder += [copy.deepcopy(holder[key])] * draw(st.sampled_from((1, 30)))
    return found


def _places(found: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (holder, key) of nested dictionaries and lists."""
    for key in list(found) if isinstance(found, dict) else range(len(found)):
        yield found, key
        if isinstance(found[key], dict | list):
            yield from _places(found[key])
