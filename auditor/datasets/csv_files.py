"""Text tables: a header and rows of as many cells, packed with gzip or not.

One parser reads every cell, so there is no second opinion on where a row ends. It holds one block of rows at a time and
adds up what it has read, so that a small file cannot unfold into more than the budget.
"""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from auditor.datasets.schema import quoted
from auditor.files.memory_budget import check_budget
from defenses.errors import DataError
from reports.untrusted import guarded, open_regular, printable

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 10_000
"""Columns that a table may have; the widest published set of this field has about 6,000."""

MOST_ROWS = 10_000_000
"""Rows that a table may have: a packed file of 1 MB can hold as many short ones, which take a quarter of a minute."""

LONGEST_NAME = 200
"""Characters that the name of a column may have."""

LONGEST_ROW = 2**23
"""Characters that a row may have, quoted line ends and blank lines before it included."""

GAPS = frozenset(
    {"", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Texts of a cell that count as missing: those of pandas, and the "?" of the UCI repository."""

MOST_UNPACKED = 100
"""Times its size that a packed file may unfold to; tables unfold to 3 to 20 times. DEFLATE itself can do 1,000."""

SMALL = 2**26
"""Characters that any packed file may unfold to."""

_BLOCK = 2**22
"""Characters that are parsed before they become columns: Python's own strings take about 20 bytes for each."""


def read_cells(
    path: Path, *, max_memory: int, names: Sequence[str] | None = None, delimiter: str = ",", skip: int = 0
) -> "pd.DataFrame":
    """Read the cells of a text table as the text that they are; guessed types would turn "01" into 1.

    Quoted cells may hold line ends. Spaces after a delimiter and blank lines are left out.

    Args:
        path: The file; packed with gzip or not is decided by its content.
        max_memory: Bytes that the rows may take.
        names: Names of the columns of a file without a header.
        delimiter: What separates two cells.
        skip: Lines to leave out at the beginning.

    Returns:
        Text columns under their stripped names; those without one are called "Unnamed: 0" and so on.

    Raises:
        DataError: If the file is no text table in UTF-8, a row has another number of cells than the header, two columns
            share a name, or the limits are exceeded.
    """
    shown = printable(str(path))
    remedy = "save it as UTF-8 text with a header and as many cells in every row"
    with guarded(shown, error=DataError, remedy=remedy), open_regular(path, error=DataError) as file:
        lines = _Lines(*_text_of(file), shown, max_memory)
        for _ in range(skip):
            next(lines, None)
        return _frame(lines, names, delimiter)


def column_names(header: Sequence[str], shown: str) -> list[str]:
    """Return the stripped names of a table's columns, those without one numbered.

    Args:
        header: As the file has them.
        shown: What to call the file in an error.

    Raises:
        DataError: If there is none, there are too many, one is too long, or two are the same.
    """
    if len(header) > MOST_COLUMNS:
        raise DataError(
            f"{shown} has {len(header):,} columns; at most {MOST_COLUMNS:,} are read, so check the delimiter, or save "
            f"fewer of them"
        )
    given = {name.strip() for name in header}
    unnamed = (name for name in (f"Unnamed: {place}" for place in count()) if name not in given)
    names = [name.strip() or next(unnamed) for name in header]
    if not names:
        raise DataError(f"{shown} has no columns; give a file with a header and at least one row")
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        raise DataError(
            f"{shown} has a column whose name has {len(long[0]):,} characters ({quoted(long[0])}); at most "
            f"{LONGEST_NAME} are read, so check the header"
        )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(f"{shown} has {times} columns named {quoted(name)}; rename or remove all but one")
    return names


class _Lines:
    """The lines of a text, as long as neither a row nor the whole is too long.

    Attributes:
        most: Characters that it may unfold to, or None.
        shown: What to call the file in an error.
        max_memory: Bytes that it may take.
        row: Characters since this was last set to 0, which is for the reader of rows to do.
        total: Characters so far.
    """

    def __init__(self, text: TextIO, most: int | None, shown: str, max_memory: int) -> None:
        self._text, self.most, self.shown, self.max_memory = text, most, shown, max_memory
        self.row = self.total = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        # Called for every line, so nothing is made here for an error that does not come.
        line = self._text.readline(LONGEST_ROW - self.row + 1)
        if not line:
            raise StopIteration
        length = len(line)
        self.row += length
        self.total += length
        if self.row > LONGEST_ROW:
            raise DataError(
                f"{self.shown} has a row (or blank lines) of more than {LONGEST_ROW:,} characters; check its line ends "
                f"and quotes"
            )
        if "\0" in line:
            raise DataError(f"{self.shown} holds a zero byte, so it is no text; save it as UTF-8 text")
        if self.most is not None and self.total > self.most:
            raise DataError(
                f"{self.shown} unfolds to more than {MOST_UNPACKED} times its size; if that is meant, unpack it and "
                f"give the .csv file"
            )
        if self.total > self.max_memory:
            check_budget(self.total, self.max_memory, f"the text of {self.shown}", error=DataError)
        return line


def _text_of(file: BinaryIO) -> tuple[TextIO, int | None]:
    """Return the text of a file, and how many characters it may have if it is packed."""
    packed = file.read(2) == b"\x1f\x8b"
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    plain = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    most = max(SMALL, MOST_UNPACKED * size) if packed else None
    return io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""), most


def _blank(row: list[str]) -> bool:
    return len(row) < 2 and not "".join(row).strip()


def _frame(lines: _Lines, names: Sequence[str] | None, delimiter: str) -> "pd.DataFrame":
    import pandas as pd

    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    header = next((row for row in rows if not _blank(row)), []) if names is None else names
    columns = column_names(header, lines.shown)
    blocks: list[pd.DataFrame] = []
    block: list[list[str]] = []
    done = held = record = 0

    def close_block() -> int:
        blocks.append(pd.DataFrame(block, columns=columns, dtype=str))
        block.clear()
        return 2 * int(blocks[-1].memory_usage(index=False, deep=True).sum())  # twice: they are joined into another

    for row in rows:
        if len(row) == len(columns):
            block.append(row)
            record += 1
            if record > MOST_ROWS:
                raise DataError(f"{lines.shown} has more than {MOST_ROWS:,} rows; save a sample of them")
            lines.row = 0  # not after a blank line: a run of them counts as one row
        elif not _blank(row):
            raise DataError(
                f"{lines.shown} has {len(row):,} cells in record {record} (line {rows.line_num:,}) and "
                f"{len(columns):,} columns; correct that row, or quote the cells that hold a delimiter"
            )
        if lines.total - done > _BLOCK:
            held, done = held + close_block(), lines.total
            check_budget(held, lines.max_memory, lines.shown, error=DataError)
    close_block()
    return pd.concat(blocks, ignore_index=True)
