"""Array, score and sealed files made to fill the memory or to crash: each is refused in one sentence."""

import gzip
import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import fuzz, modest, refused

from auditor.canaries.sealed_coins import FORMAT, SealedCoins
from auditor.context import RunContext
from auditor.datasets import load
from auditor.datasets.pixels import read_idx
from auditor.files.npz import read_npz
from auditor.plan.plan import parse_plan
from auditor.workspace import Workspace
from defenses.errors import DataError
from defenses.records import Image, Records, Table

MEBIBYTE = 2**20
BUDGET = 256 * MEBIBYTE
Arrays = dict[str, Any]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def digits(n: int = 20) -> Arrays:
    return {"x": np.linspace(0, 1, n * 16).reshape(n, 1, 4, 4), "y": np.arange(n) % 10}


def member(descr: str, shape: str, content: bytes = bytes(8)) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def packed(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members.items():
            target.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.npz"


# --- what an array says of itself


@pytest.mark.parametrize(
    ("descr", "shape", "reason"),
    [
        ("'<f8'", "(1099511627776,)", r"states shape \(1099511627776,\)"),
        ("'<f8'", "(4294967296, 4294967296)", "states shape"),
        ("'<f8'", "(-1,)", "states shape"),
        ("'<f8'", "(0,)", "states shape"),
        ("'<f8'", "'x'", "cannot be read"),
        ("'<f8'", "(" * 5000, "cannot be read"),
        ("'<f8'", "(" + "9" * 5000 + ",)", "cannot be read"),
        ("'|O'", "(1,)", "pickled objects"),
        ("[('a', '<f4'), ('b', '|O')]", "(1,)", "pickled objects"),
        ("[('a', '<f4'), ('b', '<f4')]", "(1,)", "not numbers"),
        ("('<f8', (1000, 1000, 1000))", "(1,)", "not numbers|cannot be read"),
        ("'<c8'", "(1,)", "holds complex64, not numbers"),
        ("'<M8[ns]'", "(1,)", "not numbers"),
        ("'<m8[s]'", "(1,)", "not numbers"),
        ("'|S8'", "(1,)", "not numbers"),
        ("'<U2'", "(1,)", "not numbers"),
        ("'|V8'", "(1,)", "not numbers"),
        ("'\x1b[2J'", "(1,)", "cannot be read"),
    ],
)
def test_a_header_is_compared_before_numbers_are_read(descr: str, shape: str, reason: str, path: Path) -> None:
    path.write_bytes(packed(x=member(descr, shape), y=member("'<i8'", "(1,)")))
    with refused(DataError, reason, r"save|write it with numpy\.savez"), modest():
        load(path)


@pytest.mark.parametrize("version", [(2, 0), (3, 0), (9, 9)])
def test_headers_of_other_versions(version: tuple[int, int], path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([0, 1]), version=version if version != (9, 9) else (2, 0))
    content = bytearray(file.getvalue())
    content[6:8] = bytes(version)
    path.write_bytes(packed(x=bytes(content)))
    if version == (2, 0):
        assert read_npz(path, "x")["x"].tolist() == [0, 1]
        content[8:12] = struct.pack("<I", 2**32 - 1)
        path.write_bytes(packed(x=bytes(content)))
    with refused(DataError, "version|cannot be read", "save|write"), modest():
        read_npz(path, "x")


def test_arrays_keep_type_order_and_shape(path: Path) -> None:
    arrays = {
        "a": np.asfortranarray(np.arange(12, dtype=">i2").reshape(3, 4)),
        "b": np.float16(2.5),
        "c": np.zeros((0, 3), bool),
        "d": np.arange(3_000_000, dtype=np.uint8),
    }
    np.savez_compressed(path, **arrays)
    found = read_npz(path, *arrays)
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_numbers_are_not_labels_for_pickles(path: Path) -> None:
    path.write_bytes(packed(x=b"\x80\x04N.", y=member("'<i8'", "(1,)")))
    with refused(DataError, "cannot be read", "write it with"):
        load(path)


# --- archives


def test_a_deflated_bomb_is_measured_by_its_directory(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros((300 * MEBIBYTE, 1), np.uint8), y=np.zeros(2, np.int64))
    with refused(DataError, r"would need 2\.6 GiB", "raise --max-memory"), modest(100):
        load(path, max_memory=BUDGET)


def test_an_empty_array_of_a_long_axis_is_charged_for_it(path: Path) -> None:
    path.write_bytes(packed(x=member("'<f8'", "(100000000, 0)", b""), y=member("'<i8'", "(1,)")))
    with refused(DataError, "would need", "raise --max-memory"):
        load(path, max_memory=BUDGET)


def test_a_directory_that_lies_about_a_member_is_refused(path: Path) -> None:
    content = bytearray(packed(zipfile.ZIP_DEFLATED, x=member("'<f8'", "(100000,)", bytes(800_000))))
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 200)
    path.write_bytes(bytes(content))
    with refused(DataError, "Bad CRC|has 200 bytes", "write it with|save it again"):
        read_npz(path, "x")
    content[place + 24 : place + 28] = struct.pack("<I", 2**31)
    path.write_bytes(bytes(content))
    with refused(DataError, "has 2,147,483,648 bytes", "save it again"), modest():
        read_npz(path, "x")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99, "encrypted"])
def test_other_compressions_are_refused(method: int | str, path: Path) -> None:
    content = bytearray(packed(method if method in (12, 14) else 0, x=member("'<f8'", "(1,)")))
    place = content.index(b"PK\x01\x02")
    if method == 99:
        content[place + 10] = 99
    elif method == "encrypted":
        content[place + 8] |= 1
    path.write_bytes(bytes(content))
    with refused(DataError, "encrypted or compressed by an unusual method", "write it again"):
        read_npz(path, "x")


def test_archives_with_tricks_are_refused(path: Path) -> None:
    one = member("'<f8'", "(1,)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            target.writestr("x.npy", one)
            target.writestr("x.npy", one)
    path.write_bytes(file.getvalue())
    with refused(DataError, "two members 'x.npy'", "write the file again"):
        read_npz(path, "x")
    path.write_bytes(packed(**{f"x{index}": one for index in range(1001)}))
    with refused(DataError, "1,001 members, and at most 1,000", "save fewer"):
        read_npz(path, "x0")
    content = bytearray(packed(x=one, y=one))
    start = content.index(b"PK\x01\x02")
    first, second = (content.index(name, start) for name in (b"x.npy", b"y.npy"))
    content[second - 4 : second] = content[first - 4 : first]
    path.write_bytes(bytes(content))
    with refused(DataError, "members that overlap", "write the file again"):
        read_npz(path, "x")


# --- labels


@pytest.mark.parametrize("shape", [(20, 3), (20, 4, 4)])
def test_a_label_far_beyond_the_records_is_refused_unless_the_classes_are_stated(
    shape: tuple[int, ...], path: Path
) -> None:
    y = np.arange(20)
    y[3] = 10**7
    np.savez(path, x=np.zeros(shape), y=y)
    with refused(DataError, "labels reach 10,000,000 among 20 records", "give the number of classes"), modest():
        load(path)
    if len(shape) == 3:
        assert load(path, classes=10**7 + 1).classes == 10**7 + 1
    with refused(DataError, "label 10000000 is outside", "raise classes"):
        load(path, classes=10)
    np.savez(path, x=np.zeros((20, 3)), y=y)
    for classes in (10**9, 10**400):
        with refused(DataError, "with its classes would need", "raise --max-memory"):
            load(path, classes=classes, max_memory=BUDGET)


def test_a_thousand_classes_need_no_statement(path: Path) -> None:
    np.savez(path, x=np.zeros((20, 4, 4)), y=np.arange(20) * 52)
    assert load(path).classes == 989


@pytest.mark.parametrize("y", [np.uint64([2**63, 0]), np.int64([-(2**63), 0])])
def test_labels_that_wrap_around_are_refused(y: np.ndarray, path: Path) -> None:
    np.savez(path, x=np.zeros((2, 3)), y=y)
    with refused(DataError, "label -9223372036854775808 is outside", "correct it"):
        load(path, classes=3)


@pytest.mark.parametrize("x", [np.float64(3), np.zeros(4), np.zeros((4, 0)), np.zeros((0, 3)), np.zeros((2,) * 10)])
def test_arrays_that_are_no_records_are_refused(x: np.ndarray, path: Path) -> None:
    np.savez(path, x=x, y=np.zeros(4, np.int64))
    with refused(DataError, "x has shape|y has shape", "give"):
        load(path)


# --- recorded scores


PLAN = 'title = "recorded"\n[scores]\npath = "{}"\n'


def scores(rows: int = 40) -> Arrays:
    rng = np.random.default_rng(0)
    member = np.arange(rows) % 2 == 0
    return {
        "member": member,
        "label": np.arange(rows) % 3,
        "logits": rng.normal(size=(rows, 3)),
        "shadow_member": rng.random((4, rows)) < 0.5,
        "shadow_logits": rng.normal(size=(4, rows, 3)),
        "population_label": np.arange(10) % 3,
        "population_logits": rng.normal(size=(10, 3)),
        "shadow_population_logits": rng.normal(size=(4, 10, 3)),
    }


def read_scores(path: Path) -> None:
    plan = parse_plan(PLAN.format(path.name))
    with np.errstate(all="raise"):
        plan.target.build(plan, RunContext(Workspace(path.parent / "work"), path.parent, max_memory=BUDGET))


@pytest.mark.parametrize(
    ("changed", "reason", "remedy"),
    [
        ({"member": np.float64(1)}, "member is one number", "for each record"),
        ({"member": np.ones((40, 2))}, r"member has shape \(40, 2\)", "1 axes"),
        ({"shadow_member": np.ones(40)}, r"shadow_member has shape", "2 axes"),
        ({"label": np.full(40, 1e30)}, "label has shape", "whole numbers"),
        ({"label": np.full(40, 2**64 - 1, np.uint64)}, "label has shape", "whole numbers"),
        ({"logits": np.full((40, 3), 1e300)}, "120 of 120 values are not finite", "leave"),
        ({"logits": np.full((40, 3), np.longdouble("1e4000"))}, "120 of 120 values are not finite", "leave"),
        ({"logits": np.zeros((40, 10**5))}, "labels reach 99,999 among 40", "classes"),
        ({"logits": np.zeros((40, 3), complex)}, "logits holds complex128", "save real numbers"),
        ({"owner": np.array(["a"] * 40)}, "owner holds <U1", "save real numbers"),
        ({"logits": np.array([{}] * 40)}, "pickled objects", "save plain number arrays"),
        ({"x\x1b[2J": np.zeros(3)}, "is unknown", "known are"),
        ({"population_logits": np.float32(3)}, "population_logits is one number", "for each record"),
    ],
)
def test_scores_that_do_not_fit_are_refused(changed: Arrays, reason: str, remedy: str, path: Path) -> None:
    path.write_bytes(npz(**scores() | changed))
    with refused(DataError, reason, remedy), modest():
        read_scores(path)


def test_scores_that_are_one_enormous_number_apart_overflow_nothing(path: Path) -> None:
    member = np.arange(40) % 2 == 0
    path.write_bytes(npz(member=member, score=np.where(member, 3e38, -3e38).astype(np.float32)))
    read_scores(path)


HEADER = "member,label,logits_0,logits_1\n"
ROWS = "1,0,0.5,0.1\n0,1,0.2,0.3\n"


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        (HEADER + ROWS + "1,0,0.5\n", "line 4 has 3 values and the header 4", "complete it"),
        (HEADER + ROWS + "1,0,0.5,0.1,7\n", "line 4 has 5 values", "complete it"),
        (HEADER + ROWS + "1,0,abc\x1b[2J,0.1\n", "line 4: logits_0 is 'abc", "give a number"),
        (HEADER + ROWS + "1,0,nan,0.1\n", "1 of 6 values are not finite", "leave"),
        (HEADER + ROWS + "1,0,1e999,0.1\n", "1 of 6 values are not finite", "leave"),
        (HEADER + ROWS + '1,0,"0.1,0.2\n', "cannot be read", "table of numbers"),
        (HEADER + ROWS + "1,0,0.1,\x00\n", "logits_1 is|cannot be read", "give"),
        (HEADER + ROWS + "9" * 2**22, "line of more than 4,194,304 characters|cannot be read", "end each|give a table"),
        ("member,member,loss\n1,0,2\n", "two columns 'member'", "leave one out"),
        ("member,label,logits_0,logits_2\n1,0,0,0\n", "logits_1 is missing", "from 0 on"),
        ("member,label,logits_1,logits_2\n1,0,0,0\n", "logits_0 is missing", "from 0 on"),
        ("member,label,logits_0,logits_01\n1,0,0,0\n", "'logits_01' is unknown", "known are"),
        ("member,label,logits_0,logits_1,logits\n1,0,0,0,0\n", "columns logits and logits_0", "leave logits out"),
        ("member,loss,name\x1b\n1,0,0\n", "is unknown", "known are"),
        (",".join(f"logits_{index}" for index in range(100_001)), "100,001 columns", "give 1 to 100,000"),
        ("", "has 0 columns", "names in line 1"),
        ("\n\n\n", "has 0 columns", "names in line 1"),
        ("member,loss\n", "0 records", "give 2 to"),
        ("member,loss\n\ud800", "cannot be read|line 2", "UTF-8|complete"),
    ],
)
def test_tables_of_scores_that_do_not_fit_are_refused(text: str, reason: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused(DataError, reason, remedy), modest():
        read_scores(path)


def test_a_table_larger_than_the_budget_once_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with path.open("w") as file:
        file.write(HEADER + ROWS)
        file.truncate(2**40)
    with refused(DataError, "would need 16384", "raise --max-memory"):
        read_scores(path)


def test_columns_stand_in_any_order_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("\ufefflogits_1,member,logits_0,label\n" + "0.5,1,0.1,0\n0.5,0,0.1,1\n\n", encoding="utf-8")
    read_scores(path)


# --- sealed files


def sealed(**changed: Any) -> bytes:
    """Return a sealed file whose commitment fits whatever was changed in it."""
    about = {"candidates": digit_records(), "included": np.arange(20) % 2 == 0, "kind": "mislabelled"}
    about |= {"data": "a.npz", "data_digest": "0" * 64, "reading": {}, "salt": "00" * 32}
    file = io.BytesIO()
    SealedCoins(**about | changed).write(file)  # type: ignore[arg-type]
    return file.getvalue()


def digit_records(**changed: Any) -> Records:
    arrays = digits()
    about: Arrays = {"x": arrays["x"].astype(np.float32), "y": arrays["y"], "classes": 10, "kind": Image(0.0, 1.0)}
    return Records(**about | changed)


def put_sealed(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "../../etc/passwd"},
        {"data": "/etc/passwd"},
        {"data": ""},
        {"included": np.ones((20, 1), bool)},
        {"included": np.ones(21, bool)},
        {"kind": {"a": 1}},
        {"salt": 7},
        {"candidates": digit_records(kind=Image(0.0, float("nan")))},
        {"candidates": digit_records(kind=Image(1.0, 0.0))},
        {"candidates": digit_records(kind=Table((), "y", ("a",)))},
    ],
)
def test_a_commitment_that_fits_makes_no_lie_true(changed: Arrays, tmp_path: Path) -> None:
    with refused(DataError, "not a sealed file", "name the one that belongs"):
        SealedCoins.read(put_sealed(tmp_path / "a.sealed", sealed(**changed)))


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b"null", b"{}", b"\xff", json.dumps({"format": FORMAT}).encode(), b"9" * 5000]
)
def test_a_header_that_is_none_is_refused(header: bytes, tmp_path: Path) -> None:
    arrays = digits() | {"coins": np.zeros(20), "header": np.frombuffer(header, np.uint8)}
    with refused(DataError, "not a sealed file", "name the one that belongs"):
        SealedCoins.read(put_sealed(tmp_path / "a.sealed", npz(**arrays)))


def test_a_sealed_bomb_is_measured_first(tmp_path: Path) -> None:
    file = io.BytesIO()
    about = {"header": np.zeros(1, np.uint8), "coins": np.zeros(2), "y": np.zeros(2)}
    np.savez_compressed(file, x=np.zeros(300 * MEBIBYTE, np.uint8), **about)
    with refused(DataError, "would need", "raise --max-memory"), modest(100):
        SealedCoins.read(put_sealed(tmp_path / "a.sealed", file.getvalue()), max_memory=BUDGET)


# --- idx files


@pytest.mark.parametrize(
    ("content", "reason", "remedy"),
    [
        (b"", "not a complete idx", "get it again"),
        (b"\x00\x00\x08\x00", "not a complete idx", "get it again"),
        (b"\x00\x00\x08\x03" + bytes(4), "cannot be read|not a complete idx", "get it again"),
        (b"\x00\x00\x08\x02" + struct.pack(">II", 2**31, 2**31), "would need", "--max-memory"),
        (b"\x00\x00\x08\xff" + b"\xff" * 2000, "not a complete idx", "get it again"),
        (b"\x00\x00\x08\x01" + struct.pack(">I", 4) + bytes(3), "not a complete idx", "get it again"),
        (
            gzip.compress(b"\x00\x00\x08\x01" + struct.pack(">I", 4) + bytes(5), mtime=0),
            "not a complete",
            "get it again",
        ),
        (gzip.compress(bytes(400 * MEBIBYTE), mtime=0), "not a complete idx", "get it again"),
        (b"\x1f\x8b" + bytes(20), "cannot be read", "get it again"),
    ],
)
def test_idx_files_are_measured_before_they_are_unpacked(
    content: bytes, reason: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "a-idx3-ubyte").write_bytes(content)
    with refused(DataError, reason, remedy), modest():
        read_idx(tmp_path / "a-idx3-ubyte", max_memory=BUDGET)


# --- files that are no files


READERS: dict[str, Callable[[Path], object]] = {
    "a.npz": load,
    "scores.npz": read_scores,
    "scores.csv": read_scores,
    "a.sealed": SealedCoins.read,
    "a-idx3-ubyte": read_idx,
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with refused(DataError, "is a FIFO", "give a regular file"):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with refused(DataError, "is a device", "give a regular file"):
        READERS[name](path)
    path.unlink()
    if name != "a.npz":  # load takes a folder for one of images
        path.mkdir()
        with refused(DataError, "is a folder", "give a regular file"):
            READERS[name](path)


# --- everything else


def table_of_scores() -> bytes:
    arrays = scores()
    rows = np.column_stack([arrays["member"], arrays["label"], arrays["logits"]])
    lines = [",".join(f"{value:.3f}" for value in row) for row in rows]
    return "\n".join(["member,label,logits_0,logits_1,logits_2", *lines, ""]).encode()


VALID: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]] = {
    "images": ("a.npz", lambda: npz(**digits()), lambda path: load(path, max_memory=BUDGET)),
    "features": (
        "a.npz",
        lambda: npz(x=np.linspace(0, 1, 40).reshape(20, 2), y=np.arange(20) % 2, owner=np.arange(20)),
        lambda path: load(path, max_memory=BUDGET),
    ),
    "scores": ("scores.npz", lambda: npz(**scores()), read_scores),
    "table of scores": ("scores.csv", table_of_scores, read_scores),
    "sealed": ("a.sealed", sealed, lambda path: SealedCoins.read(path, max_memory=BUDGET)),
    "idx": (
        "a-idx1-ubyte",
        lambda: b"\x00\x00\x08\x02" + struct.pack(">II", 3, 4) + bytes(12),
        lambda path: read_idx(path, max_memory=BUDGET),
    ),
}


@pytest.mark.parametrize("kind", VALID)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    name, valid, read = VALID[kind]
    with modest(512):
        fuzz(valid(), tmp_path / name, read, cases=300)


@pytest.mark.slow
@pytest.mark.parametrize("kind", VALID)
def test_many_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    name, valid, read = VALID[kind]
    with modest(512):
        fuzz(valid(), tmp_path / name, read, cases=3000)
