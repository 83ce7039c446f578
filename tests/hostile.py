"""Damage to files that were whole, and what a refusal has to look like; shared by the tests that read hostile files."""

import contextlib
import copy
import io
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from defenses.errors import AuditError

LONGEST = 600
"""Characters that a message may have."""

_EDGES = (0, 1, 0x7F, 0x80, 0xFF)
_LENGTHS = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    b"NaN", b"inf", b"Infinity", b"1e999", b"-1", b"18446744073709551616", b"9" * 40, b"9" * 5000, b"1979-05-27",
    b"[]", b"null", b'"', b"'''", b"=", b",,,", b"a." * 300, b"{" * 3000, b"[" * 3000,
    b"", b"\n", b"\r\n", b"\x00", b"\x00" * 64, b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m", b"\\ud800", b"\\u0000",
)  # fmt: skip


def fuzz(valid: bytes, path: Path, read: Callable[[Path], object], *, cases: int) -> None:
    """Let a reader loose on damaged versions of a file: it may read them, or refuse them with one sentence."""

    # The same cases each time, and none that fails because the machine is slow.
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mutations(valid))
    def one(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(AuditError):
            try:
                read(path)
            except AuditError as error:
                check_sentence(error)
                raise

    path.write_bytes(valid)
    path.chmod(0o600)
    read(path)
    one()


def check_sentence(error: Exception) -> None:
    """Check that a message is one line that fits on a screen, and that nothing in it moves the cursor."""
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < LONGEST, text


@contextlib.contextmanager
def refused(error: type[AuditError], reason: str, remedy: str) -> Iterator[None]:
    """Check that what follows is refused with an error of this type, this reason, and after it this remedy."""
    with pytest.raises(error, match=f"(?:{reason}).*(?:{remedy})") as caught:
        yield
    assert caught.type is error
    check_sentence(caught.value)


@contextlib.contextmanager
def modest(mebibytes: int = 256) -> Iterator[None]:
    """Check that the most memory that the process ever held grows by no more than this."""
    unit = 1024 if sys.platform == "darwin" else 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit / 1024
    assert grown < mebibytes, f"{grown:.0f} MiB"


def mutations(valid: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of damaged versions of a file: cut, flipped, spliced, overwritten; archives also by member."""
    place = st.integers(0, max(len(valid) - 1, 0))
    ways = [
        st.builds(lambda end: valid[:end], place),
        st.builds(lambda cuts: _flip(valid, cuts), st.lists(st.tuples(place, st.integers(0, 7)), min_size=1)),
        st.builds(lambda at, new: valid[:at] + new + valid[at + len(new) :], place, _pieces()),
        st.builds(lambda at, new: valid[:at] + new + valid[at:], place, _pieces()),
        st.builds(lambda a, b, at: valid[:at] + valid[min(a, b) : max(a, b)] + valid[at:], place, place, place),
        st.builds(lambda a, b: valid[: min(a, b)] + valid[max(a, b) :], place, place),
    ]
    if zipfile.is_zipfile(io.BytesIO(valid)):
        ways.append(_archives(valid))
    return st.one_of(ways)


def _pieces() -> st.SearchStrategy[bytes]:
    numbers = st.builds(struct.pack, st.sampled_from(["<Q", ">Q"]), st.sampled_from(_LENGTHS))
    return st.one_of(
        st.binary(max_size=16),
        st.sampled_from(_WORDS),
        st.builds(lambda value: bytes([value]), st.sampled_from(_EDGES)),
        st.one_of(numbers, st.builds(lambda value: struct.pack("<I", value & 0xFFFFFFFF), st.sampled_from(_LENGTHS))),
    )


def _flip(valid: bytes, cuts: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(valid)
    for at, bit in cuts if valid else ():
        damaged[at] ^= 1 << bit
    return bytes(damaged)


def _archives(valid: bytes) -> st.SearchStrategy[bytes]:
    """Archives that are whole again after a member was damaged, so that the damage is met behind the checksums."""
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    @st.composite
    def rebuilt(draw: st.DrawFn) -> bytes:
        name = draw(st.sampled_from(sorted(members)))
        # The beginning of a member says what it is, so most of the damage goes there.
        head, rest = members[name][:160], members[name][160:]
        changed = members | {name: draw(mutations(head)) + rest if draw(st.booleans()) else draw(mutations(head))}
        if draw(st.integers(0, 9)) == 0:
            changed.pop(name)
        method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", method) as archive:
            for one, content in changed.items():
                archive.writestr(one, content)
        return target.getvalue()

    return rebuilt()


def replaced(valid: Any, nasty: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Documents with one to three values replaced by a nasty one, dropped, or moved to another key."""
    return _changed(valid, lambda value: nasty, shape=True)


def alike(valid: Any, *, texts: st.SearchStrategy[str], numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Documents with one to six values replaced by a nasty one of the same type, so that most of them still load."""

    def nasty(value: Any) -> st.SearchStrategy[Any]:
        if isinstance(value, list):
            return st.sampled_from(([], value[:1], value * 2))
        if isinstance(value, dict):
            return st.sampled_from(({}, value, None))
        if isinstance(value, bool):
            return st.just(not value)
        return texts if isinstance(value, str) else st.none() if value is None else numbers

    return _changed(valid, nasty, shape=False)


@st.composite
def _changed(draw: st.DrawFn, valid: Any, nasty: Callable[[Any], st.SearchStrategy[Any]], *, shape: bool) -> Any:
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
