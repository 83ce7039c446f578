"""Tables that somebody else wrote: what does not fit is refused in one sentence, in bounded memory."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import mutations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.datasets import load
from auditor.datasets.csv_files import LONGEST_ROW, MOST_COLUMNS, read_cells
from auditor.datasets.reading import Reading
from auditor.datasets.schema import encode, numeric, table
from auditor.datasets.table_files import read_table
from defenses.errors import AuditError, DataError

MIB = 2**20
ROWS = "".join(f"{20 + i % 9},{'north' if i % 3 else 'south'},{i % 2}\n" for i in range(40))
VALID = f"age,ward,sick\n{ROWS}"
FUZZ = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def refused(path: Path, *, max_memory: int = 2**30, label: str = "sick", **said: object) -> str:
    """Return the sentence with which a table is refused, after a look at its form."""
    with pytest.raises(DataError) as caught:
        read_table(path, Reading(label=label, max_memory=max_memory, **said))  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 600
    assert ";" in sentence, "no remedy"
    return sentence


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- rows and headers


def test_a_row_with_a_cell_too_many_does_not_shift_the_table(tmp_path: Path) -> None:
    # pandas takes the first column for an index where every row has one cell more than the header.
    path = written(tmp_path / "t.csv", "age,ward,sick\n" + "".join(f"7,{row}\n" for row in ROWS.splitlines()))
    assert "has 4 cells in record 0 (line 2) and 3 columns" in refused(path)


@pytest.mark.parametrize(("row", "cells"), [("1,2", 2), ("1,2,3,4", 4), ('1,"2\n2"', 2)])
def test_a_row_of_another_length_is_named(row: str, cells: int, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"{VALID}{row}\n{ROWS}")
    assert f"has {cells} cells in record 40 (line {42 + row.count(chr(10))}) and 3 columns" in refused(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for header in ("age,age,sick", "age, age ,sick"):  # also where they differ in spaces only
        assert "has 2 columns named 'age'" in refused(written(tmp_path / "t.csv", f"{header}\n{ROWS}"))
    twice = pa.Table.from_arrays([pa.array([1, 2])] * 3, names=["age", "age", "sick"])
    pq.write_table(twice, tmp_path / "t.parquet")
    assert "has 2 columns named 'age'" in refused(tmp_path / "t.parquet")


def test_cells_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    text = (
        "\ufeffname, note,,x\r\n"
        '"a, b","line one\r\nline ""two""",1,  2\r\n'
        "\r\n"
        "  \r\n"
        "5' 10,  NA,?,01\r\n"
        'ß,"",é,1e400\r\n'
    )
    for name, content in (("t.csv", text.encode()), ("t.csv.gz", gzip.compress(text.encode()))):
        path = written(tmp_path / name, content)
        found = read_cells(path, max_memory=MIB)
        wanted = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        assert found.to_numpy().tolist() == wanted.to_numpy().tolist()
        assert found.columns.tolist() == ["name", "note", "Unnamed: 0", "x"]


def test_an_index_that_was_saved_twice_gets_a_name_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "Unnamed: 0,,sick\n1,2,0\n")
    assert read_cells(path, max_memory=MIB).columns.tolist() == ["Unnamed: 0", "Unnamed: 1", "sick"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no columns"),
        (b"\n \n", "has no columns"),
        (b"age,sick\n", "holds no rows"),
        (b"age,sick\n1,0\x00\n", "zero byte"),
        (b"age,sick\n1,\xff\n", "UnicodeDecodeError"),
        (b"age,sick\n1,\xed\xa0\x80\n", "UnicodeDecodeError"),  # a lone surrogate
        ("age,sick\n1,0\n".encode("utf-16"), "UnicodeDecodeError"),
        (b'age,sick\n"1,0\n', "unexpected end of data"),
        (b'age,sick\n"1"0,0\n', "expected after"),
        (b"\x1f\x8b" + b"age,sick", "cannot be read"),
        (gzip.compress(VALID.encode(), mtime=0)[:-9], "cannot be read"),
        (b"age,sick\n" + b"x" * 200_000 + b",0\n", "field larger than field limit"),
        (b"age,sick\n1,no\x1b[31m\n1,yes\n1,yes\n" + b"".join(b"1,%d\n" % i for i in range(80)), r"different values"),
    ],
)
def test_text_that_is_no_table_is_refused_in_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(written(tmp_path / "t.csv", content))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_fifo_is_refused_and_not_waited_for(ending: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"t.{ending}")
    assert "is a FIFO" in refused(tmp_path / f"t.{ending}")


def test_names_of_a_file_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "a\x1b[2J\nb.csv", f"age,\x1b[31mward,{'x' * 150}\n{ROWS}")
    with pytest.raises(ValueError, match="has no column") as caught:
        load(path, label="sick")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# --- more than fits


def test_a_million_columns_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ",".join(f"{i:x}" for i in range(10**6)) + "\n")
    assert f"1,000,000 columns; at most {MOST_COLUMNS:,}" in refused(path)


def test_a_name_without_end_is_refused(tmp_path: Path) -> None:
    assert "name has 5,000 characters" in refused(written(tmp_path / "t.csv", f"{'a' * 5000},sick\n1,0\n"))


def test_a_row_without_end_is_refused(tmp_path: Path) -> None:
    text = "age,sick\n" + "1," * (LONGEST_ROW // 2 + 1)
    assert "has a row (or" in refused(written(tmp_path / "t.csv", text))
    lines = '"\n",' * (LONGEST_ROW // 4 + 1)  # every line is short; the row is not
    assert "has a row (or" in refused(written(tmp_path / "t.csv", f"age,sick\n{lines}"))


def growth(path: Path, budget: int) -> tuple[int, str]:
    """Return by how many bytes a process grows that reads a table, and what it prints."""
    code = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from auditor.datasets.reading import Reading\n"
        "from auditor.datasets.table_files import read_table\n"
        "def read(path):\n"
        "    try: read_table(Path(path), Reading(label='sick', max_memory=int(sys.argv[3])))\n"
        "    except Exception as error: return f'{type(error).__name__}: {error}'\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "read(sys.argv[1])\n"
        "before = peak()\n"
        "said = read(sys.argv[2])\n"
        "print(peak() - before, said, flush=True)\n"
        "os._exit(0)  # Arrow's own threads may abort a process that ends after a refusal\n"
    )
    small = path.with_name(f"small_{path.name}")
    if path.suffix == ".parquet":
        pd.read_csv(io.StringIO(VALID)).to_parquet(small)
    else:
        small.write_text(VALID)
    done = subprocess.run(
        [sys.executable, "-c", code, str(small), str(path), str(budget)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    grown, _, said = done.stdout.partition(" ")
    return int(grown), said


@pytest.mark.parametrize(("limit", "words"), [("MOST_ROWS", "more than 1,000 rows"), ("SMALL", "100 times its size")])
def test_a_bomb_of_short_rows_ends_after_so_many(
    limit: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few MB of packed short rows took minutes to reach any budget of memory."""
    monkeypatch.setattr(f"auditor.datasets.csv_files.{limit}", 1000)
    path = written(tmp_path / "t.csv.gz", gzip.compress(b"age,sick\n" + b"1,no\n" * 100_000))
    with pytest.raises(DataError, match=words):
        load(path, label="sick")


def test_a_gzip_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"age,sick\n")
        for _ in range(100):
            file.write(b"1,0\n" * (MIB // 4))
    assert path.stat().st_size < 2 * MIB
    grown, said = growth(path, 16 * MIB)
    assert said.startswith("DataError: ")
    assert "the budget is 0.0 GiB" in said
    assert grown < 150 * MIB


def test_blank_lines_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.datasets.csv_files.LONGEST_ROW", 100_000)
    path = written(tmp_path / "t.csv.gz", gzip.compress(b"age,sick\n" + b"\n" * 200_000))
    assert "blank lines) of more than 100,000 characters" in refused(path)


def test_a_parquet_file_that_repeats_a_text_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    rows = 9_000
    once = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * MIB]))
    pq.write_table(pa.table({"text": once, "sick": pa.array(np.arange(rows) % 2)}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 3 * MIB
    grown, said = growth(tmp_path / "t.parquet", 256 * MIB)
    assert said.startswith("DataError: ")
    assert "17.6 GiB of memory" in said
    assert grown < 200 * MIB


def test_a_parquet_file_of_very_many_equal_numbers_is_refused_by_its_header(tmp_path: Path) -> None:
    zeros = pa.array(np.zeros(5 * 10**6))
    with pq.ParquetWriter(tmp_path / "t.parquet", pa.schema([("age", pa.float64()), ("sick", pa.float64())])) as file:
        for _ in range(4):
            file.write_table(pa.table({"age": zeros, "sick": zeros}))
    assert (tmp_path / "t.parquet").stat().st_size < MIB
    grown, said = growth(tmp_path / "t.parquet", 64 * MIB)
    assert "would need 0.3 GiB of memory" in said
    assert grown < 50 * MIB


def test_rows_that_would_be_too_large_once_they_are_encoded_are_refused() -> None:
    frame = pd.DataFrame({"age": np.zeros(1000), "sick": "no"})
    schema = table(numeric("age", 0, 1), label="sick", classes=("no", "yes"))
    with pytest.raises(DataError, match=r"ward, encoded as 1,000 x 1, would need"):
        encode(frame, schema, name="ward", max_memory=3999)
    assert encode(frame, schema, name="ward", max_memory=4000).shape == (1,)


# --- what cells say


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("1e400", "'age' holds an infinite number in record 40"),
        ("-inf", "'age' holds an infinite number in record 40"),
        ("nan", "'age' holds no number in record 40"),
        ("0x10", "'age' holds '0x10' in record 40 among numbers"),
        ("1_000", "'age' holds '1_000' in record 40 among numbers"),
        ("\uff11\uff12", "in record 40 among numbers"),  # digits, but not of ASCII
        ("1e", "'age' holds '1e' in record 40 among numbers"),
        ("x" * 5000, "in record 40 among numbers"),
        ("1\x1b[31m", r"'1\x1b[31m' in record 40"),
    ],
)
def test_numbers_are_decimal_and_finite(cell: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(written(tmp_path / "t.csv", f"{VALID}{cell},north,0\n{ROWS}"))


def test_numbers_that_are_too_far_apart_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"{VALID}-1e308,north,0\n1e308,north,0\n")
    assert "goes from -1e+308 to 1e+308" in refused(path)
    with pytest.raises(ValueError, match="give two finite numbers"):
        read_table(path, Reading(label="sick", ranges={"age": (-1e308, 1e308)}))


def test_large_integers_keep_their_size(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"age,sick\n{10**30},0\n1,1\n")
    assert load(path, label="sick").x.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("said", [{}, {"categories": {"id": ()}}])
def test_very_many_categories_are_refused(said: dict[str, dict[str, tuple[str, ...]]], tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id,sick\n" + "".join(f"p{i},{i % 2}\n" for i in range(10**5)))
    assert "100000 different texts in 100000 records" in refused(path, **said)


def test_thousands_of_classes_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "age,sick\n" + "".join(f"{i % 7},c{i // 2}\n" for i in range(4004)))
    assert "2002 different values in 4004 records, too many for classes (at most 1,000" in refused(path)


def test_a_text_is_no_category(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"{VALID}20,{'x' * 300},0\n")
    assert "holds a text of 300 characters" in refused(path)


# --- anything else


def _parquet() -> bytes:
    frame = pd.read_csv(io.StringIO(VALID))
    frame["kind"] = pd.Categorical(["u", "v"] * 20)
    target = io.BytesIO()
    frame.to_parquet(target, compression=None)
    return target.getvalue()


PACKED = gzip.compress(VALID.encode(), mtime=0)
KINDS = {
    "csv": mutations(VALID.encode()),
    "csv.gz": st.one_of(mutations(PACKED), mutations(VALID.encode()).map(lambda text: gzip.compress(text, mtime=0))),
    "parquet": mutations(_parquet()),
}


def survives(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        records = read_table(path, Reading(label="sick", max_memory=256 * MIB))
    except AuditError as error:
        sentence = str(error)
    except ValueError as error:  # the name of the label may be what is damaged
        sentence = str(error)
        if not sentence.startswith("label: "):
            raise
    else:
        assert np.isfinite(records.x).all()
        return
    assert sentence.isprintable()
    assert len(sentence) < 600


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_damaged_table_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    @FUZZ
    @given(KINDS[kind])
    def run(content: bytes) -> None:
        survives(tmp_path / f"t.{kind}", content)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_very_many_damaged_tables_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    @settings(FUZZ, max_examples=3000)
    @given(KINDS[kind])
    def run(content: bytes) -> None:
        survives(tmp_path / f"t.{kind}", content)

    run()
