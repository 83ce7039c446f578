"""Parquet tables: one column after the other, each counted as it is read.

A parquet file says in a few bytes that a value is repeated a million times, so neither its size nor what its header
says of its size bounds what it unfolds into. Texts are read as codes and dictionaries, and what they unfold into is
added up before they are unfolded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.datasets.csv_files import column_names
from auditor.datasets.schema import quoted
from auditor.files.memory_budget import check_budget
from defenses.errors import DataError
from reports.untrusted import guarded, open_regular, printable

if TYPE_CHECKING:
    import pandas as pd

_CELL = 8
"""Bytes that a cell takes at least."""

_OBJECT = 128
"""Bytes of a value for which pandas makes a Python object: a decimal number or a day."""


def read_parquet(path: Path, *, max_memory: int) -> "pd.DataFrame":
    """Read a parquet file of plain columns: numbers, texts, categories, truth values, dates.

    Args:
        path: The file.
        max_memory: Bytes that the rows may take.

    Returns:
        Typed columns under their stripped names.

    Raises:
        DataError: If the file is damaged, holds lists or other nested values, two columns share a name, or the budget
            is exceeded.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = printable(str(path))
    with (
        guarded(shown, error=DataError, remedy="write it again, for example with pandas.DataFrame.to_parquet"),
        open_regular(path, error=DataError) as file,
    ):
        about = pq.ParquetFile(file)
        schema, metadata = about.schema_arrow, about.metadata
        column_names(schema.names, shown)
        for field in schema:
            if not _is_plain(field.type):
                raise DataError(
                    f"{shown}: column {quoted(field.name)} has the type {printable(str(field.type), longest=60)}"
                    f"; only numbers, texts, categories, truth values and dates are read, so remove or convert it"
                )
        groups = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        declared = max(groups, metadata.num_rows * len(schema) * _CELL)
        check_budget(declared, max_memory, shown, error=DataError)
        source = pq.ParquetFile(file, metadata=metadata, read_dictionary=[one.name for one in schema if _is_text(one)])
        columns, held = [], 0
        for field in schema:
            column, held = _column(source, field, held, max_memory=max_memory, shown=shown)
            columns.append(column)
        table = pa.table(columns, names=schema.names).replace_schema_metadata(schema.metadata)
        frame: pd.DataFrame = table.to_pandas()
        frame.columns = pd.Index(column_names([str(name) for name in frame.columns], shown))
        return frame


def _column(source: Any, field: Any, held: int, *, max_memory: int, shown: str) -> tuple[Any, int]:
    """Return a column, and the bytes that are held with it."""
    import pyarrow as pa

    parts = []
    for group in range(source.num_row_groups):
        # Not iter_batches: its threads outlive a refusal, and can abort the process when it ends.
        for part in source.read_row_group(group, columns=[field.name], use_threads=False).column(field.name).chunks:
            part.validate(full=True)
            held += 2 * _size(part)  # twice: a column is there once more while it is encoded
            check_budget(held, max_memory, shown, error=DataError)
            parts.append(part.cast(field.type) if _is_text(field) else part)
    return pa.chunked_array(parts, type=None if parts else field.type), held


def _size(part: Any) -> int:
    """Return the bytes that values take once they are unfolded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    least = len(part) * (_OBJECT if pa.types.is_decimal(part.type) or pa.types.is_date(part.type) else _CELL)
    if pa.types.is_dictionary(part.type):
        lengths = pc.binary_length(part.dictionary)
        return least + int(pc.sum(lengths.take(part.indices)).as_py() or 0)
    return max(least, int(part.nbytes))


def _is_text(field: Any) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(kind(field.type) for kind in kinds)


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return any((pa.types.is_string(kind.value_type), pa.types.is_large_string(kind.value_type)))
    kinds = ("boolean", "integer", "floating", "decimal", "string", "large_string", "string_view", "date", "timestamp")
    return pa.types.is_null(kind) or any(getattr(pa.types, f"is_{name}")(kind) for name in kinds)
