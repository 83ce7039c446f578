"""Tables: `.csv`, `.csv.gz` and `.parquet` go out as they came in, cell by cell; canaries keep to the schema."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.canaries.canary_type import Drawn
from auditor.canaries.data_format import DataFormat
from auditor.datasets import decode
from auditor.datasets.csv_files import GAPS
from auditor.datasets.schema import MISSING, quoted
from auditor.datasets.table_files import read_frame
from auditor.files.memory_budget import default_budget
from defenses.errors import DataError
from defenses.records import Column, FloatArray, IntArray, Records, Table
from reports.untrusted import printable

if TYPE_CHECKING:
    import pandas as pd

MOST_DECIMALS = 6


class TableFile(DataFormat):
    """A table with one label column.

    Numbers of a canary are written with as many decimals as the column has. Columns that the model does not use
    (`exclude`) are filled from a record drawn at random.

    Args:
        name: Name of the file.
        records: The data set as it was loaded.
        frame: The rows: text cells of a csv, typed ones of a parquet file.
    """

    def __init__(self, name: str, records: Records, frame: "pd.DataFrame") -> None:
        super().__init__(name, records, {})
        assert isinstance(records.kind, Table)
        self._frame, self._schema = frame, records.kind
        self._column = {str(column).strip(): column for column in frame.columns}

    @classmethod
    def at(cls, path: Path, records: Records) -> "TableFile":
        """Take over the file that the records were read from."""
        frame = read_frame(path, max_memory=default_budget())
        if len(frame) != len(records):
            raise DataError(
                f"{printable(str(path))} changed while it was read: {len(frame)} rows, not {len(records)}; try again"
            )
        return cls(path.name, records, frame)

    @classmethod
    def of(cls, records: Records, name: str) -> "TableFile":
        """Make a csv of records that have no file, with no more decimals than it takes to read them back."""
        schema = records.kind
        assert isinstance(schema, Table)
        frame = decode(records.x, schema)
        for column in schema.columns:
            if not column.categories:
                frame[column.name] = _shortest(frame[column.name].to_numpy(np.float64), column)
        frame[schema.label] = np.array(schema.classes, dtype=object)[records.y]
        return cls(f"{name}.csv", records, frame)

    def write(self, path: Path, kept: IntArray, added: Drawn, order: IntArray) -> None:
        """Write the rows in the given order; see `DataFormat.write`."""
        import pandas as pd

        new = self._rows(added)
        if new is None:
            rows = self._frame.iloc[kept]
        elif not len(kept):
            rows = new
        else:
            rows = pd.concat([self._frame.iloc[kept], new], ignore_index=True)
        rows = rows.iloc[order].reset_index(drop=True)
        if path.name.lower().endswith(".parquet"):
            rows.to_parquet(path, engine="pyarrow", index=False)
        else:
            rows.to_csv(path, index=False)

    def _rows(self, added: Drawn) -> "pd.DataFrame | None":
        """Return the canaries as rows of the file."""
        if not len(added):
            return None
        filler = np.random.default_rng().integers(0, len(self._frame), len(added))
        rows = self._frame.iloc[filler if added.base is None else added.base].reset_index(drop=True)
        cells = decode(added.x, self._schema) if added.base is None else None
        if cells is not None:
            for column in self._schema.columns:
                self._fill(rows, column.name, column, cells[column.name].to_numpy())
        self._fill(rows, self._schema.label, None, np.array(self._schema.classes, dtype=object)[added.y])
        return rows

    def _fill(self, rows: "pd.DataFrame", name: str, column: Column | None, values: npt.NDArray[Any]) -> None:
        """Put values into a column, in the column's own type and style."""
        import pandas as pd

        place = self._column[name]
        like = self._frame[place]
        text = pd.api.types.is_string_dtype(like)
        try:
            if column is None or column.categories:
                rows[place] = pd.Series(_as_found(values, like), dtype=like.dtype)
            elif text:
                digits = _decimals(like)
                rows[place] = pd.Series([f"{value:.{digits}f}" for value in values], dtype=like.dtype)
            else:
                whole = pd.api.types.is_integer_dtype(like)
                rows[place] = pd.Series(np.rint(values) if whole else values).astype(like.dtype)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.name}: a canary's value for column {quoted(name)} does not fit its type {like.dtype} "
                f"({printable(str(error))}); give ranges and categories that the column can hold"
            ) from error


def _as_found(values: npt.NDArray[Any], like: "pd.Series[Any]") -> list[Any]:
    """Return texts of categories as the column spells them: 1, True, or a missing cell as the file has it."""
    spelled: dict[str, Any] = {MISSING: None} if like.isna().any() else {}
    for value in like.drop_duplicates().dropna().tolist():
        whole = isinstance(value, float) and value.is_integer()
        spelled.setdefault(MISSING if value in GAPS else str(int(value) if whole else value).strip(), value)
    return [spelled.get(value, value) for value in values]


def _decimals(like: "pd.Series[Any]") -> int:
    """Return how many decimals a column of numbers in text has, at most."""
    plain = like.astype(str).str.strip().str.lower()
    tails = plain[~plain.str.contains("e")].str.partition(".")[2].str.len()
    return int(tails.max()) if len(tails) else MOST_DECIMALS


def _shortest(values: npt.NDArray[np.float64], column: Column) -> npt.NDArray[Any]:
    """Return numbers with the fewest decimals that encode to the same features; whole ones as integers."""

    def encoded(numbers: npt.NDArray[np.float64]) -> FloatArray:
        return ((numbers - column.low) / ((column.high - column.low) or 1.0)).astype(np.float32)

    wanted = encoded(values)
    for digits in range(MOST_DECIMALS + 1):
        rounded = values.round(digits)
        if np.array_equal(encoded(rounded), wanted):
            return rounded if digits else rounded.astype(np.int64)
    return values
