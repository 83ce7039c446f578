"""Plans, policies and records as text: one reader of TOML and one of JSON, for files that somebody else wrote.

What either returns is plain: nested no deeper than 40 levels, at most 500,000 values, whole numbers of at most 64 bits,
no NaN, and text that UTF-8 can hold. So whoever goes through it neither runs out of stack nor fails to write it again.
"""

import contextlib
import datetime
import json
import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reports.untrusted import guarded, open_regular, printable, quoted

MOST_TOML = 1_000_000
"""Bytes of a plan or a policy."""

MOST_JSON = 50_000_000
"""Bytes of a record."""

DEPTH = 40
"""Levels of tables and lists."""

VALUES = 500_000
"""Values in all."""

ENTRIES = 50_000
"""Entries of one table or list."""

KEY = 500
"""Characters of a key."""

_DOTS = 5_000  # of one line: the time that tomllib takes for a dotted key grows with the square of its parts
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_FIRST = 5  # problems, or levels of a place, that a message names
_PART = 60  # characters of a key in a place


def read_toml(path: Path, *, error: type[Exception]) -> dict[str, Any]:
    """Read a TOML file; see `parse_toml`.

    Args:
        path: The file, of at most 1 MB.
        error: What to raise.

    Raises:
        error: If it is no regular file, is too large, or `parse_toml` refuses its content.
    """
    return parse_toml(_content(path, most=MOST_TOML, error=error), what=str(path), error=error)


def parse_toml(text: str | bytes, *, what: str, error: type[Exception]) -> dict[str, Any]:
    """Return the content of TOML text, whatever the text is.

    Args:
        text: Text, or its UTF-8.
        what: How messages call it, usually its path.
        error: What to raise.

    Returns:
        Tables with strings, finite numbers, truth values, lists and tables; dates and times are refused, because no
        key of ours takes one and JSON has none.

    Raises:
        error: For anything else; one sentence.
    """
    written = _decoded(text, what=what, most=MOST_TOML, error=error)
    if max(line.count(".") for line in written.split("\n")) > _DOTS:
        raise error(f"{printable(what)}: a line holds more than {_DOTS:,} dots; break it up")
    try:
        with _parsing(what, error=error, keep=tomllib.TOMLDecodeError):
            found = tomllib.loads(written)
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{printable(what)} is not TOML: {printable(str(problem))}; correct it there") from None
    _check(found, what=what, error=error, toml=True)
    return found


def read_json(path: Path, *, error: type[Exception]) -> Any:
    """Read a JSON file; see `parse_json`.

    Args:
        path: The file, of at most 50 MB.
        error: What to raise.

    Raises:
        error: If it is no regular file, is too large, or `parse_json` refuses its content.
    """
    return parse_json(_content(path, most=MOST_JSON, error=error), what=str(path), error=error)


def parse_json(text: str | bytes, *, what: str, error: type[Exception]) -> Any:
    """Return the content of JSON text, whatever the text is; takes what `parse_toml` takes.

    Infinities are text in our records; as bare words, which JSON does not have, they are refused like NaN.

    Raises:
        error: If it is not such JSON; one sentence.
    """
    written = _decoded(text, what=what, most=MOST_JSON, error=error)

    def refuse(word: str) -> None:
        raise error(f"{printable(what)} holds {word}, which JSON does not have; leave the value out or give a reason")

    try:
        with _parsing(what, error=error, keep=json.JSONDecodeError):
            found = json.loads(written, parse_constant=refuse)
    except json.JSONDecodeError as problem:
        raise error(f"{printable(what)}: the text is not JSON ({problem}); give the file as it was written") from None
    _check(found, what=what, error=error, toml=False)
    return found


def problems(found: ValidationError) -> str:
    """Return what pydantic found as text of bounded length: "place: what is wrong", at most five of them."""
    listed = found.errors(include_url=False, include_context=False)
    said = []
    for problem in listed[:_FIRST]:
        place = printable(".".join(str(part) for part in problem["loc"]), longest=120) or "the content"
        said.append(f"{place}: {printable(problem['msg'].removeprefix('Value error, '))}")
    return and_more(said, len(listed))


def and_more(said: list[str], total: int) -> str:
    """Join sentences about problems, and say how many more there are."""
    more = total - len(said)
    return "; ".join(said) + (f"; and {more:,} more problem{'s' * (more > 1)}" if more > 0 else "")


def _content(path: Path, *, most: int, error: type[Exception]) -> bytes:
    # The guard is for files that open and cannot be read, such as some of /proc, or of a disk that fails.
    remedy = "give another file"
    with open_regular(path, error=error, most=most) as file, guarded(str(path), error=error, remedy=remedy):
        return file.read(most + 1)


def _decoded(text: str | bytes, *, what: str, most: int, error: type[Exception]) -> str:
    if len(text) > most:
        raise error(f"{printable(what)} is larger than {most:,} bytes, which is all that is read; check the file")
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.encode()  # lone surrogates are no text
    except UnicodeError as problem:
        place = getattr(problem, "start", 0)
        raise error(f"{printable(what)} is not text in UTF-8 (at {place}); save it as UTF-8") from None
    return text


@contextlib.contextmanager
def _parsing(what: str, *, error: type[Exception], keep: type[Exception]) -> Iterator[None]:
    with guarded(what, error=error, remedy="correct the file", keep=keep):
        try:
            yield
        except keep:
            raise
        except RecursionError:
            raise error(f"{printable(what)} is nested too deeply; at most {DEPTH} levels are read") from None
        except ValueError as problem:
            if "digits" in str(problem):  # Python's own limit, whose message speaks to programmers
                raise error(f"{printable(what)} holds a number of thousands of digits; write a shorter one") from None
            raise


def _check(found: Any, *, what: str, error: type[Exception], toml: bool) -> None:
    """Refuse what no key takes; goes through without recursion, however deep it is."""
    waiting: list[tuple[Any, str, int]] = [(found, "", 0)]
    seen = 0
    while waiting:
        value, place, depth = waiting.pop()
        seen += 1
        problem = None
        if isinstance(value, dict | list):
            if depth > DEPTH:
                problem = f"it is nested deeper than {DEPTH} levels"
            elif len(value) > ENTRIES or seen + len(waiting) > VALUES:
                problem = f"it holds too much: at most {ENTRIES:,} entries of one list and {VALUES:,} values are read"
            else:
                entries = value.items() if isinstance(value, dict) else enumerate(value, start=1)
                for key, entry in entries:
                    problem = problem or (_key_problem(key, toml=toml) if isinstance(key, str) else None)
                    waiting.append((entry, f"{place}.{str(key)[:_PART]}" if depth < _FIRST else place, depth + 1))
        else:
            problem = _value_problem(value, toml=toml)
        if problem is not None:
            shown = printable(place.lstrip("."), longest=120)
            raise error(f"{printable(what)}{': ' if shown else ''}{shown}: {problem}")


def _key_problem(key: str, *, toml: bool) -> str | None:
    if len(key) > KEY:
        return f"a key has {len(key):,} characters ({quoted(key, longest=40)}); at most {KEY} are taken"
    if toml and _CONTROL.search(key):
        return f"key {quoted(key)} holds a control character; leave it out"
    return _text_problem(key)


def _value_problem(value: Any, *, toml: bool) -> str | None:
    if isinstance(value, str):
        return "the text holds a zero byte; leave it out" if toml and "\0" in value else _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no value here; give a finite number, or leave the key out"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{quoted(value)} is out of range; whole numbers have at most 64 bits"
    if isinstance(value, datetime.date | datetime.time):
        return f"{value} is a date or time, which no key takes; put it into quotes"
    return None


def _text_problem(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        return f"the text holds half a character (a lone surrogate at {problem.start}); give whole characters"
    return None
