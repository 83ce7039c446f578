"""Tables: declare, infer, encode and decode the schema that turns rows into features.

A numeric column is one feature, scaled to [0, 1] by its range; a categorical column is a one-hot block over its
categories. The schema is data (`defenses.records.Table`), so two files can be encoded alike and rows can be decoded.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.files.memory_budget import check_budget, default_budget
from defenses.errors import DataError
from defenses.records import Column, FloatArray, IntArray, Records, Table
from reports.untrusted import printable

if TYPE_CHECKING:
    import pandas as pd

MISSING = "?"
"""The category that a missing cell of a categorical column is encoded as."""

LONGEST_SHOWN = 48
"""Characters of a name or value from a file that an error shows."""


def numeric(name: str, low: float, high: float) -> Column:
    """Declare a numeric column whose public range is [`low`, `high`] (source's units)."""
    return Column(name, (), float(low), float(high), start=0, width=1)


def categorical(name: str, *categories: str) -> Column:
    """Declare a categorical column with its public domain, in the order of its one-hot block."""
    return Column(name, categories, 0.0, 1.0, start=0, width=len(categories))


def table(*columns: Column, label: str, classes: Sequence[str], public_domain: bool = True) -> Table:
    """Lay the columns out one after the other and return the schema.

    Args:
        *columns: From `numeric` and `categorical`, in the order of the source.
        label: Name of the label column.
        classes: Label values in the order of their integer codes.
        public_domain: Whether ranges and categories come from a public description.

    Returns:
        The schema, each column with its `start` set.

    Examples:
        >>> ward = table(numeric("age", 0, 100), categorical("sex", "f", "m"), label="sick", classes=("no", "yes"))
        >>> ward.columns[1].start
        1
    """
    starts = np.cumsum([0, *(column.width for column in columns)])
    placed = tuple(replace(column, start=int(start)) for column, start in zip(columns, starts, strict=False))
    return Table(placed, label, tuple(classes), public_domain)


def encode(frame: "pd.DataFrame", schema: Table, *, name: str, max_memory: int | None = None) -> Records:
    """Encode rows by a schema; columns that the schema does not name are left out.

    Args:
        frame: The rows (n), text or typed, the label among the columns.
        schema: From `table`, `infer`, or another set's `Records.kind`.
        name: What the data set is called in reports and errors.
        max_memory: Bytes that x may take; None for half of what there is.

    Returns:
        Records with x (n, features) in [0, 1]: a number outside its range is clipped to it, and a missing cell of a
        categorical column becomes the category "?" if the schema has one.

    Raises:
        DataError: If a column is absent, a value is not in its column's domain, a number is missing, or x would be too
            large.

    Examples:
        >>> import pandas as pd
        >>> schema = table(numeric("age", 0, 100), label="sick", classes=("no", "yes"))
        >>> encode(pd.DataFrame({"age": [25], "sick": ["yes"]}), schema, name="ward").x
        array([[0.25]], dtype=float32)
    """
    absent = [column for column in (*(c.name for c in schema.columns), schema.label) if column not in frame]
    if absent:
        raise DataError(
            f"{name}: column {few(absent)} is missing; the schema needs it, the file has {few(frame.columns)}"
        )
    if not len(frame):
        raise DataError(f"{name} holds no rows; at least one is needed")
    shape = len(frame), sum(column.width for column in schema.columns)
    budget = default_budget() if max_memory is None else max_memory
    check_budget(4 * math.prod(shape), budget, f"{name}, encoded as {shape[0]:,} x {shape[1]:,},", error=DataError)
    x = np.zeros(shape, dtype=np.float32)
    rows = np.arange(len(frame))
    for column in schema.columns:
        if column.categories:
            x[rows, column.start + _codes(frame[column.name], column.categories, column.name, name)] = 1
        else:
            x[:, column.start] = _scaled(frame[column.name], column, name)
    y = _codes(frame[schema.label], schema.classes, schema.label, name)
    return Records(x, y, len(schema.classes), schema, name=name)


def decode(x: FloatArray, schema: Table) -> "pd.DataFrame":
    """Turn encoded rows back into the source's columns (without the label).

    Args:
        x: (n, features) rows as `encode` gives them, or anything shaped alike, such as synthetic rows.
        schema: The schema that they were encoded by.

    Returns:
        One column per column of the source: numbers in the source's units, and the largest category of each block.

    Raises:
        ValueError: If x does not have the schema's number of features.
    """
    import pandas as pd

    width = sum(column.width for column in schema.columns)
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"x has shape {x.shape}; this schema decodes (n, {width})")
    columns: dict[str, npt.NDArray[Any]] = {}
    for column in schema.columns:
        block = x[:, column.start : column.start + column.width]
        if column.categories:
            columns[column.name] = np.array(column.categories, dtype=object)[block.argmax(axis=1)]
        else:
            columns[column.name] = column.low + block[:, 0].astype(np.float64) * (column.high - column.low)
    return pd.DataFrame(columns)


def few(names: Collection[object], most: int = 8) -> str:
    """List names for an error, the first `most` and how many more."""
    shown = ", ".join(str(name) if isinstance(name, int) else quoted(str(name)) for name in islice(names, most))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def quoted(value: object) -> str:
    """Return a name or value from a file for an error: in quotes, on one line, and not long."""
    return printable(repr(value), longest=LONGEST_SHOWN)


def as_numbers(values: "pd.Series[Any]") -> npt.NDArray[np.float64] | None:
    """Return the values as numbers (missing ones NaN), or None if one of them is not a number."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return None
    numbers = pd.to_numeric(values, errors="coerce")
    if int(numbers.isna().sum()) != int(values.isna().sum()):
        return None
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def as_text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return stripped texts; a whole number has no decimals."""
    # A typed column may hold 1.0 in one file and 1 in the next (one missing cell is enough): both are the text "1".
    import pandas as pd

    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype("string").str.strip()


def _codes(values: "pd.Series[Any]", categories: Sequence[str], column: str, source: str) -> IntArray:
    import pandas as pd

    text = as_text(values)
    if MISSING in categories:
        text = text.fillna(MISSING)
    codes = pd.Index(categories).get_indexer(pd.Index(text.astype(object)))
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        held = "nothing" if pd.isna(text.iloc[row]) else quoted(text.iloc[row])
        raise DataError(
            f"{source}: column {quoted(column)} holds {held} in record {row} ({int((codes < 0).sum())} such records); "
            f"its values are {few(categories, 12)}. Correct the records, or load with a schema that has this value"
        )
    return np.asarray(codes, dtype=np.int64)


def _scaled(values: "pd.Series[Any]", column: Column, source: str) -> npt.NDArray[np.float64]:
    numbers = as_numbers(values)
    if numbers is None:
        import pandas as pd

        bad = pd.to_numeric(values, errors="coerce").isna() & values.notna()
        row = int(np.flatnonzero(bad.to_numpy())[0]) if bad.any() else 0
        raise DataError(
            f"{source}: column {quoted(column.name)} holds {quoted(values.iloc[row])} in record {row}, and the "
            f"schema says it is a number in [{column.low:g}, {column.high:g}]; correct the records"
        )
    all_finite(numbers, column.name, source)
    # A constant column has no width to divide by; every value of it is 0.
    scaled = (numbers - column.low) / ((column.high - column.low) or 1.0)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def all_finite(numbers: npt.NDArray[np.float64], column: str, source: str) -> None:
    """Refuse numbers that are missing or infinite."""
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        what = "no number" if np.isnan(numbers[bad[0]]) else "an infinite number"
        raise DataError(
            f"{source}: column {quoted(column)} holds {what} in record {bad[0]} ({bad.size} such records); fill them "
            f"in, drop those rows, or leave the column out with exclude"
        )
