"""Damaged and hostile bytes for the tests of everything that reads a file."""

import hypothesis.strategies as st

NASTY = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b'"',
    b"\xed\xa0\x80",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\0" * 64,
)
"""Pieces that parsers have stumbled over: ends, quotes, a lone surrogate, largest and negative lengths."""


def mutations(valid: bytes) -> st.SearchStrategy[bytes]:
    """Return variants of a valid file: bits flipped, ends cut off, pieces moved, repeated or replaced."""
    place = st.integers(0, len(valid))
    flips = st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(1, 255)), min_size=1, max_size=8)
    return st.one_of(
        flips.map(lambda found: _flipped(valid, found)),
        place.map(lambda end: valid[:end]),
        st.tuples(place, place, place).map(lambda cut: valid[: cut[0]] + valid[min(cut[1:]) : max(cut[1:])]),
        st.tuples(place, place, place).map(
            lambda cut: valid[: cut[0]] + valid[min(cut[1:]) : max(cut[1:])] + valid[cut[0] :]
        ),
        st.tuples(place, place, st.one_of(st.sampled_from(NASTY), st.binary(max_size=16))).map(
            lambda cut: valid[: min(cut[:2])] + cut[2] + valid[max(cut[:2]) :]
        ),
        st.tuples(place, st.sampled_from(NASTY), st.integers(1, 200)).map(
            lambda cut: valid[: cut[0]] + cut[1] * cut[2] + valid[cut[0] :]
        ),
    )


def _flipped(valid: bytes, flips: list[tuple[int, int]]) -> bytes:
    found = bytearray(valid)
    for place, bits in flips:
        found[place] ^= bits
    return bytes(found)
