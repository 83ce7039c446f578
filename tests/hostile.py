"""Damage to files that were whole, shared by the tests that read hostile files.

A test asks for `mutations(valid)` and lets its reader loose on what comes: only an `AuditError` may come out.
"""

import io
import struct
import zipfile

from hypothesis import strategies as st

FUZZ = {"deadline": None, "database": None, "derandomize": True}
"""Settings of every such test: the same cases each time, and none that fails because the machine is slow."""

_EDGES = (0, 1, 0x7F, 0x80, 0xFF)
_LENGTHS = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (b"NaN", b"1e999", b"-1", b"[]", b"null", b'"', b",,,", b"\n", b"\x00", b"\xff\xfe", b"9" * 40, b"{" * 200)


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
