"""Parquet files that somebody else wrote: only plain columns are read, as pandas reads them."""

import struct
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_hostile_tables import MIB, refused, written

from auditor.datasets.parquet_files import read_parquet


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1, 2], [3]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([b"a", b"b"]),
        pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        pa.array([1, 2], pa.time32("s")),
        pa.array([1, 2], pa.duration("s")),
    ],
    ids=lambda values: str(values.type),
)
def test_nested_and_binary_columns_are_refused(values: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"odd": values, "sick": ["no", "yes"]}), tmp_path / "t.parquet")
    assert "column 'odd' has the type" in refused(tmp_path / "t.parquet")


def test_plain_columns_keep_type_and_value(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "a": [1.5, None, 2.5] * 100,
            "a.b": [1, 2, 3] * 100,
            "text": ["x", "yy", None] * 100,
            "kind": pd.Categorical(["u", "v", None] * 100),
            "flag": [True, False, True] * 100,
            "day": pd.to_datetime(["2020-01-01"] * 300),
            "gap": pd.array([1, 2, None] * 100, dtype="Int64"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=70)
    pd.testing.assert_frame_equal(
        read_parquet(tmp_path / "t.parquet", max_memory=MIB), pd.read_parquet(tmp_path / "t.parquet")
    )


def test_texts_in_parquet_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ward": ["SURROGATE", "b"], "sick": ["no", "yes"]}), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes().replace(b"SURROGATE", b"\xed\xa0\x80\xed\xa0\x80ATE")
    assert "cannot be read (ArrowInvalid" in refused(written(tmp_path / "t.parquet", content))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + struct.pack("<i", -1) + b"PAR1", b"PAR1" * 100])
def test_bytes_that_are_no_parquet_are_refused(content: bytes, tmp_path: Path) -> None:
    assert "cannot be read" in refused(written(tmp_path / "t.parquet", content))
