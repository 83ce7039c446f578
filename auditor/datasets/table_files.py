"""Tables in files: `.csv`, `.csv.gz` and `.parquet`, one named column being the label."""

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.datasets.csv_files import GAPS, read_cells
from auditor.datasets.inferred import infer
from auditor.datasets.parquet_files import read_parquet
from auditor.datasets.reading import Reading
from auditor.datasets.schema import encode, few
from defenses.errors import DataError
from defenses.records import Records, Table
from reports.untrusted import guarded, printable

if TYPE_CHECKING:
    import pandas as pd

TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")
"""How the names of files that hold a table end."""


def read_table(path: Path, reading: Reading) -> Records:
    """Read a `.csv`, `.csv.gz` or `.parquet` file into encoded rows.

    A column is numeric if every value in it is a number, else categorical. Cells of a csv file stay the text that they
    are. An empty cell, "?" and the usual marks (NA, NaN, null) are missing: the category "?" in a categorical column,
    an error in a numeric one.

    Args:
        path: The file.
        reading: label (needed unless `like` is given), classes, ranges, categories, exclude, like.

    Returns:
        Records with their schema in `kind`.

    Raises:
        DataError: If the file cannot be read or a column cannot be encoded.
        ValueError: If an argument does not fit the file.
    """
    shown = printable(str(path))
    reading.refuse_all_but("label", "classes", "ranges", "categories", "exclude", "like", source=shown)
    name = printable(path.name.removesuffix(".gz").rsplit(".", 1)[0])
    frame = read_frame(path, max_memory=reading.max_memory)
    if not path.name.lower().endswith(".parquet"):
        frame = frame.mask(frame.isin(GAPS))
    with guarded(shown, error=DataError, remedy="correct its cells", keep=ValueError):
        return encode(frame, _schema(frame, reading, shown), name=name, max_memory=reading.max_memory)


def _schema(frame: "pd.DataFrame", reading: Reading, shown: str) -> Table:
    """Return the schema of `like`, or else what the arguments and the rows say."""
    if reading.like is not None:
        schema = reading.like.kind
        if not isinstance(schema, Table):
            raise ValueError(
                f"like: {reading.like.name} holds images, {shown} a table; give the records of another table"
            )
        _agree(reading, schema, like=reading.like.name)
        return schema
    if reading.label is None:
        raise ValueError(f"{shown} needs the name of its label column: give label, one of {few(frame.columns)}")
    if isinstance(reading.classes, int):
        raise ValueError(
            f"classes is {reading.classes}; a table needs the label values, in order: classes=['no', 'yes']"
        )
    return infer(
        frame,
        label=reading.label,
        source=shown,
        classes=reading.class_names,
        ranges=reading.ranges,
        categories=reading.categories,
        exclude=reading.exclude,
    )


def _agree(reading: Reading, schema: Table, *, like: str) -> None:
    """Raise ValueError if an argument says something else than the schema; none is dropped silently."""
    columns = {column.name: column for column in schema.columns}
    wrong = [] if reading.label in (None, schema.label) else ["label"]
    if reading.classes is not None and reading.class_names != schema.classes:
        wrong.append("classes")
    for name, limits in reading.ranges.items():
        column = columns.get(name)
        if column is None or column.categories or tuple(limits) != (column.low, column.high):
            wrong.append(f"ranges of {name!r}")
    for name, values in reading.categories.items():
        column = columns.get(name)
        if column is None or not column.categories or tuple(values) not in ((), column.categories):
            wrong.append(f"categories of {name!r}")
    wrong += [f"exclude of {name!r}" for name in reading.exclude if name in columns]
    if wrong:
        raise ValueError(f"{wrong[0]} is not what {like} was loaded with; give the same, or leave it out beside like")


def read_frame(path: Path, *, max_memory: int) -> "pd.DataFrame":
    """Read the rows of a table: cells of a csv as the text that they are, typed ones of a parquet file.

    Args:
        path: A file that ends like one of `TABLE_ENDINGS`.
        max_memory: Bytes that the rows may take.

    Raises:
        DataError: If it cannot be read, has no rows, or does not fit into the budget.
    """
    reader = read_parquet if path.name.lower().endswith(".parquet") else read_cells
    frame = reader(path, max_memory=max_memory)
    if not len(frame):
        raise DataError(f"{printable(str(path))} holds no rows; at least one is needed")
    return frame
