"""Infer the schema of a table from its rows, as far as it is not declared."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.datasets.schema import MISSING, all_finite, as_numbers, as_text, categorical, few, numeric, quoted, table
from defenses.errors import DataError
from defenses.records import Column, Table
from reports.suggestions import nearest

if TYPE_CHECKING:
    import pandas as pd

MOSTLY = 0.9
"""Share of numbers from which text in a column is taken for a mistake."""

FEW = 20
"""Up to this many different values are a plausible category set, however few rows there are."""

MOST_CATEGORIES = 200
"""More different values than this make a column free text or an identifier, unless its categories are given."""


LONGEST_CATEGORY = 200
"""Characters of a category or class that is taken from the data."""

MOST_CLASSES = 1_000
"""More different labels than this are no classes, unless they are given."""


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
    _check_names(names, source, label=[label], ranges=ranges, categories=categories, exclude=exclude)
    for name, (low, high) in ranges.items():
        if not (low < high and np.isfinite(high - low)):
            raise ValueError(f"ranges: {quoted(name)} is ({low}, {high}); give two finite numbers, the smaller first")
    columns: list[Column] = []
    public = classes is not None
    for name in names:
        if name == label or name in exclude:
            continue
        numbers = None if name in categories or frame[name].isna().all() else as_numbers(frame[name])
        if numbers is None and name in ranges:
            raise ValueError(
                f"ranges: column {quoted(name)} of {source} is not numeric; list its values under categories"
            )
        if numbers is None:
            if name not in categories:
                _refuse_stray_text(frame[name], name, source)
            columns.append(categorical(name, *(categories.get(name) or _categories(frame[name], name, source))))
            public = public and bool(categories.get(name))
        else:
            columns.append(numeric(name, *(ranges.get(name) or _range(numbers, name, source))))
            public = public and name in ranges
    if not columns:
        raise DataError(f"{source} has no column left beside the label {quoted(label)}; exclude fewer columns")
    return table(*columns, label=label, classes=classes or _classes(frame[label], label, source), public_domain=public)


def _check_names(names: Sequence[str], source: str, **arguments: Collection[str]) -> None:
    for argument, given in arguments.items():
        for name in given:
            if name not in names:
                raise ValueError(
                    f"{argument}: {source} has no column {quoted(name)}{nearest(name, names, listed=False)}; it has "
                    f"{few(names)}"
                )


def _refuse_stray_text(values: "pd.Series[Any]", column: str, source: str) -> None:
    """Refuse text among numbers: one stray cell would silently turn a column of numbers into one of categories."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return
    stray = (pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy()
    if 0 < stray.sum() <= (1 - MOSTLY) * values.notna().sum():
        row = int(np.flatnonzero(stray)[0])
        raise DataError(
            f"{source}: column {quoted(column)} holds {quoted(values.iloc[row])} in record {row} among numbers "
            f"({int(stray.sum())} such records); correct them, or name the column under categories (an empty list "
            "takes what is there)"
        )


def _distinct(values: "pd.Series[Any]", column: str, source: str) -> list[str]:
    found = as_text(values.drop_duplicates()).dropna().unique().tolist()
    if long := [value for value in found if len(value) > LONGEST_CATEGORY]:
        raise DataError(
            f"{source}: column {quoted(column)} holds a text of {len(long[0]):,} characters ({quoted(long[0])}); a "
            f"category has at most {LONGEST_CATEGORY}, so leave the column out with exclude, or shorten its texts"
        )
    try:
        return sorted(found, key=lambda value: (float(value), value))
    except ValueError:
        return sorted(found)


def _range(numbers: npt.NDArray[np.float64], column: str, source: str) -> tuple[float, float]:
    all_finite(numbers, column, source)
    low, high = float(numbers.min()), float(numbers.max())
    if not np.isfinite(high - low):
        raise DataError(
            f"{source}: column {quoted(column)} goes from {low:g} to {high:g}, further than a number reaches; give its "
            f"range, or leave it out with exclude"
        )
    whole = bool((numbers % 1 == 0).all())
    # A row number tells the members' file from the non-members' file: an attack would "succeed" on the file layout.
    if whole and len(numbers) > FEW and high - low + 1 == len(numbers) == len(np.unique(numbers)):
        raise DataError(
            f"{source}: column {quoted(column)} counts the rows ({low:g} to {high:g}, each once), so it identifies a "
            f"record; leave it out with exclude, or give its range if it is a true attribute"
        )
    return low, high


def _categories(values: "pd.Series[Any]", column: str, source: str) -> tuple[str, ...]:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values):
        raise DataError(
            f"{source}: column {quoted(column)} holds dates; turn it into a number, or leave it out with exclude"
        )
    found = _distinct(values, column, source)
    if len(found) > MOST_CATEGORIES or len(found) > max(FEW, len(values) // 2):
        raise DataError(
            f"{source}: column {quoted(column)} has {len(found)} different texts in {len(values)} records, like an "
            f"identifier or free text (at most {MOST_CATEGORIES}, and half the records); leave it out with exclude, or "
            "list its values under categories"
        )
    has_gap = bool(values.isna().any())
    return (*(value for value in found if value != MISSING), *([MISSING] if has_gap or MISSING in found else []))


def _classes(values: "pd.Series[Any]", label: str, source: str) -> tuple[str, ...]:
    if values.isna().any():
        row = int(np.flatnonzero(values.isna().to_numpy())[0])
        raise DataError(
            f"{source}: label {quoted(label)} is missing in record {row}; every record needs one, so drop it"
        )
    found = _distinct(values, label, source)
    if len(found) > min(MOST_CLASSES, max(FEW, len(values) // 2)):
        raise DataError(
            f"{source}: label {quoted(label)} has {len(found)} different values in {len(values)} records, too many for "
            f"classes (at most {MOST_CLASSES:,}, and half the records); name the column that holds the class, group "
            "its values, or list them under classes"
        )
    return tuple(found)
