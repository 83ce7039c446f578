"""Which tables are released: one per column, one per pair of columns, or a chosen set."""

import enum
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from defenses.records import IntArray

Margin = tuple[str, ...]
"""The columns of one table of counts: one or two names."""

MOST_CELLS = 10_000_000
"""More cells than this in one table are refused: it would hold nothing but noise."""


class Ways(enum.StrEnum):
    """The usual sets of tables."""

    ONE = "one_way"
    TWO = "two_way"
    ONE_AND_TWO = "one_and_two_way"
    WITH_LABEL = "with_label"


def margins_of(
    tables: Ways | Sequence[Sequence[str]], names: Sequence[str], *, label: str | None = None
) -> tuple[Margin, ...]:
    """Return the tables that are meant, each once.

    Args:
        tables: `Ways.ONE` for every column, `Ways.TWO` for every pair (a single column for itself), `ONE_AND_TWO` for
            both, `WITH_LABEL` for the pairs of each column with the label; or a list of tables, each one or two names.
        names: The columns.
        label: The column that `WITH_LABEL` pairs the others with.

    Raises:
        ValueError: If a table names a column that is not there or one column twice, is repeated, or has more than two
            columns; if a column is in no table; or if there is no label where one is needed.
    """
    if isinstance(tables, Ways):
        return _usual(tables, names, label)
    found: list[Margin] = []
    for table in tables:
        margin = (table,) if isinstance(table, str) else tuple(table)
        unknown = [name for name in margin if name not in names]
        if unknown:
            raise ValueError(f"table {margin} names column {unknown[0]!r}, which is not there; there are {list(names)}")
        if len(margin) not in (1, 2) or len(set(margin)) < len(margin):
            raise ValueError(f"table {margin} has {len(margin)} columns; give one name, or two different ones")
        if any(set(margin) == set(other) for other in found):
            raise ValueError(f"table {margin} is listed twice; a table costs its budget each time, so list it once")
        found.append(margin)
    missed = [name for name in names if not any(name in margin for margin in found)]
    if missed:
        raise ValueError(f"column {missed[0]!r} is in no table; add the table ({missed[0]!r},), or drop the column")
    return tuple(found)


def _usual(ways: Ways, names: Sequence[str], label: str | None) -> tuple[Margin, ...]:
    ones: tuple[Margin, ...] = tuple((name,) for name in names)
    pairs: tuple[Margin, ...] = tuple(itertools.combinations(names, 2))
    if ways is Ways.ONE or not pairs:
        return ones
    if ways is Ways.TWO:
        return pairs
    if ways is Ways.ONE_AND_TWO:
        return ones + pairs
    if label is None:
        raise ValueError(
            f"tables is {str(ways)!r}, and no column is named as the label; name it, or choose other tables"
        )
    return tuple((name, label) for name in names if name != label)


def shape_of(margin: Margin, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a table.

    Raises:
        ValueError: If it has more cells than `MOST_CELLS`.
    """
    shape = tuple(sizes[name] for name in margin)
    if np.prod(shape, dtype=np.float64) > MOST_CELLS:
        raise ValueError(f"table {margin} has {shape} cells, more than {MOST_CELLS:,}; give coarser bins")
    return shape


def contingency(codes: Mapping[str, IntArray], margin: Margin, shape: tuple[int, ...]) -> IntArray:
    """Count rows by the cells of a table.

    Args:
        codes: Column -> (rows,) codes, each in 0 .. size - 1.
        margin: The columns of the table.
        shape: Their sizes.
    """
    flat = np.ravel_multi_index(tuple(codes[name] for name in margin), shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(np.int64)
