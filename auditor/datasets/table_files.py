"""Tables in files: `.csv`, `.csv.gz` and `.parquet`, one named column being the label."""

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.datasets.reading import Reading
from auditor.datasets.schema import encode, few, infer
from defenses.errors import DataError
from defenses.records import Records, Table

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
    reading.refuse_all_but("label", "classes", "ranges", "categories", "exclude", "like", source=str(path))
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    frame = _frame(path)
    if reading.like is not None:
        schema = reading.like.kind
        if not isinstance(schema, Table):
            raise ValueError(
                f"like: {reading.like.name} holds images, {path} a table; give the records of another table"
            )
        _agree(reading, schema, like=reading.like.name)
        return encode(frame, schema, name=name)
    if reading.label is None:
        raise ValueError(f"{path} needs the name of its label column: give label, one of {few(frame.columns)}")
    if isinstance(reading.classes, int):
        raise ValueError(
            f"classes is {reading.classes}; a table needs the label values, in order: classes=['no', 'yes']"
        )
    schema = infer(
        frame,
        label=reading.label,
        source=str(path),
        classes=reading.class_names,
        ranges=reading.ranges,
        categories=reading.categories,
        exclude=reading.exclude,
    )
    return encode(frame, schema, name=name)


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


def _frame(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        if path.name.lower().endswith(".parquet"):
            frame = pd.read_parquet(path, engine="pyarrow")
        else:
            # Text throughout: guessed types would turn "01" into 1 in one file and leave it in the next.
            frame = pd.read_csv(path, dtype=str, skipinitialspace=True, na_values="?")
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a table ({reason}); check the file") from None
    if not len(frame):
        raise DataError(f"{path} holds no rows; at least one is needed")
    return frame.rename(columns=lambda column: str(column).strip())
