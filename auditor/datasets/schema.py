"""Tables: declare, infer, encode and decode the schema that turns rows into features.

A numeric column is one feature, scaled to [0, 1] by its range; a categorical column is a one-hot block over its
categories. The schema is data (`defenses.records.Table`), so two files can be encoded alike and rows can be decoded.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from defenses.errors import DataError
from defenses.records import Column, FloatArray, IntArray, Records, Table

if TYPE_CHECKING:
    import pandas as pd

MOSTLY = 0.9
"""Share of numbers from which text in a column is taken for a mistake."""
MISSING = "?"
"""The category that a missing cell of a categorical column is encoded as."""

FEW = 20
"""Up to this many different values are a plausible category set, however few rows there are."""

MOST_CATEGORIES = 200
"""More different values than this make a column free text or an identifier, unless its categories are given."""


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

    Example:
        >>> ward = table(numeric("age", 0, 100), categorical("sex", "f", "m"), label="sick", classes=("no", "yes"))
        >>> ward.columns[1].start
        1
    """
    starts = np.cumsum([0, *(column.width for column in columns)])
    placed = tuple(replace(column, start=int(start)) for column, start in zip(columns, starts, strict=False))
    return Table(placed, label, tuple(classes), public_domain)


def infer(
    frame: "pd.DataFrame",
    *,
    label: str,
    source: str,
    classes: Sequence[str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    exclude: Collection[str] = (),
) -> Table:
    """Read a schema off a table: what is not given is taken from the data, and the schema then says so.

    Args:
        frame: The rows, the label among the columns.
        label: Name of the label column.
        source: What to call the table in an error.
        classes: Label values in the order of their codes; None takes those present, sorted.
        ranges: Public (low, high) of numeric columns.
        categories: Public values of categorical columns; an empty sequence makes the column categorical and takes the
            values from the data (for codes that look like numbers).
        exclude: Columns to leave out.

    Returns:
        The schema; `public_domain` is True only if nothing had to be read from the data.

    Raises:
        DataError: If a column is an identifier or row number, lacks a number, or the label cannot be a class.
        ValueError: If an argument names a column that is not there, or a range that is empty.
    """
    ranges, categories = ranges or {}, categories or {}
    names = [str(column) for column in frame.columns]
    for argument, given in (("label", [label]), ("ranges", ranges), ("categories", categories), ("exclude", exclude)):
        for name in given:
            if name not in names:
                raise ValueError(
                    f"{argument}: {source} has no column {name!r}{nearest(name, names)}; it has {few(names)}"
                )
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"ranges: {name!r} is ({low}, {high}); give two finite numbers, the smaller first")
    columns: list[Column] = []
    public = classes is not None
    for name in names:
        if name == label or name in exclude:
            continue
        numbers = None if name in categories or frame[name].isna().all() else as_numbers(frame[name])
        if numbers is None and name in ranges:
            raise ValueError(f"ranges: column {name!r} of {source} is not numeric; list its values under categories")
        if numbers is None:
            if name not in categories:
                _refuse_stray_text(frame[name], name, source)
            columns.append(categorical(name, *(categories.get(name) or _categories(frame[name], name, source))))
            public = public and bool(categories.get(name))
        else:
            columns.append(numeric(name, *(ranges.get(name) or _range(numbers, name, source))))
            public = public and name in ranges
    if not columns:
        raise DataError(f"{source} has no column left beside the label {label!r}; exclude fewer columns")
    return table(*columns, label=label, classes=classes or _classes(frame[label], label, source), public_domain=public)


def encode(frame: "pd.DataFrame", schema: Table, *, name: str) -> Records:
    """Encode rows by a schema; columns that the schema does not name are left out.

    Args:
        frame: The rows (n), text or typed, the label among the columns.
        schema: From `table`, `infer`, or another set's `Records.kind`.
        name: What the data set is called in reports and errors.

    Returns:
        Records with x (n, features) in [0, 1]: a number outside its range is clipped to it, and a missing cell of a
        categorical column becomes the category "?" if the schema has one.

    Raises:
        DataError: If a column is absent, a value is not in its column's domain, or a number is missing.

    Example:
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
    x = np.zeros((len(frame), sum(column.width for column in schema.columns)), dtype=np.float32)
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


def nearest(name: str, known: Collection[str]) -> str:
    """Return ' (did you mean ...?)' for the closest known name, or nothing if none is close."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def few(names: Collection[object], most: int = 8) -> str:
    """List names for an error, the first `most` and how many more."""
    shown = ", ".join(str(name) if isinstance(name, int) else repr(str(name)) for name in list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def as_numbers(values: "pd.Series[Any]") -> npt.NDArray[np.float64] | None:
    """Return the values as numbers (missing ones NaN), or None if one of them is not a number."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return None
    numbers = pd.to_numeric(values, errors="coerce")
    if int(numbers.isna().sum()) != int(values.isna().sum()):
        return None
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _refuse_stray_text(values: "pd.Series[Any]", column: str, source: str) -> None:
    """Refuse text among numbers: one stray cell would silently turn a column of numbers into one of categories."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return
    stray = (pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy()
    if 0 < stray.sum() <= (1 - MOSTLY) * values.notna().sum():
        row = int(np.flatnonzero(stray)[0])
        raise DataError(
            f"{source}: column {column!r} holds {values.iloc[row]!r} in record {row} among numbers ({int(stray.sum())} "
            f"such records); correct them, or name the column under categories (an empty list takes what is there)"
        )


def _text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    # A typed column may hold 1.0 in one file and 1 in the next (one missing cell is enough): both are the text "1".
    import pandas as pd

    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype("string").str.strip()


def _distinct(values: "pd.Series[Any]") -> list[str]:
    found = _text(values.drop_duplicates()).dropna().unique().tolist()
    try:
        return sorted(found, key=lambda value: (float(value), value))
    except ValueError:
        return sorted(found)


def _codes(values: "pd.Series[Any]", categories: Sequence[str], column: str, source: str) -> IntArray:
    import pandas as pd

    text = _text(values)
    if MISSING in categories:
        text = text.fillna(MISSING)
    codes = pd.Index(categories).get_indexer(pd.Index(text.astype(object)))
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        held = "nothing" if pd.isna(text.iloc[row]) else repr(text.iloc[row])
        raise DataError(
            f"{source}: column {column!r} holds {held} in record {row} ({int((codes < 0).sum())} such records); its "
            f"values are {few(categories, 12)}. Correct the records, or load with a schema that has this value"
        )
    return np.asarray(codes, dtype=np.int64)


def _scaled(values: "pd.Series[Any]", column: Column, source: str) -> npt.NDArray[np.float64]:
    numbers = as_numbers(values)
    if numbers is None:
        import pandas as pd

        bad = pd.to_numeric(values, errors="coerce").isna() & values.notna()
        row = int(np.flatnonzero(bad.to_numpy())[0]) if bad.any() else 0
        raise DataError(
            f"{source}: column {column.name!r} holds {values.iloc[row]!r} in record {row}, and the schema says it is a "
            f"number in [{column.low:g}, {column.high:g}]; correct the records"
        )
    _all_finite(numbers, column.name, source)
    # A constant column has no width to divide by; every value of it is 0.
    scaled = (numbers - column.low) / ((column.high - column.low) or 1.0)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def _all_finite(numbers: npt.NDArray[np.float64], column: str, source: str) -> None:
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        what = "no number" if np.isnan(numbers[bad[0]]) else "an infinite number"
        raise DataError(
            f"{source}: column {column!r} holds {what} in record {bad[0]} ({bad.size} such records); fill them in, "
            f"drop those rows, or leave the column out with exclude"
        )


def _range(numbers: npt.NDArray[np.float64], column: str, source: str) -> tuple[float, float]:
    _all_finite(numbers, column, source)
    low, high = float(numbers.min()), float(numbers.max())
    whole = bool((numbers % 1 == 0).all())
    # A row number tells the members' file from the non-members' file: an attack would "succeed" on the file layout.
    if whole and len(numbers) > FEW and high - low + 1 == len(numbers) == len(np.unique(numbers)):
        raise DataError(
            f"{source}: column {column!r} counts the rows ({low:g} to {high:g}, each once), so it identifies a record; "
            f"leave it out with exclude, or give its range if it is a true attribute"
        )
    return low, high


def _categories(values: "pd.Series[Any]", column: str, source: str) -> tuple[str, ...]:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values):
        raise DataError(f"{source}: column {column!r} holds dates; turn it into a number, or leave it out with exclude")
    found = _distinct(values)
    if len(found) > MOST_CATEGORIES or len(found) > max(FEW, len(values) // 2):
        raise DataError(
            f"{source}: column {column!r} has {len(found)} different texts in {len(values)} records, like an "
            f"identifier or free text (at most {MOST_CATEGORIES}, and half the records); leave it out with exclude, or "
            "list its values under categories"
        )
    has_gap = bool(values.isna().any())
    return (*(value for value in found if value != MISSING), *([MISSING] if has_gap or MISSING in found else []))


def _classes(values: "pd.Series[Any]", label: str, source: str) -> tuple[str, ...]:
    if values.isna().any():
        row = int(np.flatnonzero(values.isna().to_numpy())[0])
        raise DataError(f"{source}: label {label!r} is missing in record {row}; every record needs one, so drop it")
    found = _distinct(values)
    if len(found) > max(FEW, len(values) // 2):
        raise DataError(
            f"{source}: label {label!r} has {len(found)} different values in {len(values)} records, too many for "
            f"classes; name the column that holds the class, or group the values first"
        )
    return tuple(found)
