"""Hostile arrays, recorded outputs, tables, folders of images and sealed files."""

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import test_hostile_arrays as of_arrays
import test_hostile_images as of_images
import test_hostile_parquet as of_parquet
import test_hostile_tables as of_tables
from hostile_case import MODEL, NO_FILES, TRAINING, Case, Content, Scene, bomb, link, numbered, parameters, sparse
from hostile_programs import Call, calls, programs
from test_hostile_arrays import ROWS, digits, member, npz, packed

from auditor.canaries.sealed_coins import FORMAT

MIB = 2**20
READING = 'title = "d"\n[data]\npool = 20\nsource = "{}"\n'
SCORES = 'title = "s"\n[scores]\npath = "{}"\n'
SEALED = (
    'title = "k"\n[checkpoint]\npath = "../shared/model.safetensors"\ncanaries = "coins.sealed"\n[[attacks]]\n'
    'name = "loss_threshold"\n'
) + MODEL


def reading(source: str, more: str = "") -> str:
    """Return a plan that trains on a file."""
    return READING.format(source) + more + MODEL + TRAINING


def objects(call: Call) -> dict[str, Any]:
    """Return arrays of objects that run something when they are unpickled."""
    single = np.array([call] * 20, dtype=object)
    inside = np.zeros(20, dtype=[("a", "<f8"), ("b", "O")])
    inside["b"] = call
    return {"objects": single, "objects in two axes": single.reshape(20, 1), "objects in a structure": inside}


def arrays(scene: Scene) -> list[Case]:
    """Return hostile arrays."""
    one = member("'<i8'", "(20,)", bytes(160))
    call = calls(scene)["posix.system"]
    whole = npz(**digits())
    found: dict[str, Content] = {
        f"a header of {descr[:30]!r} and {shape[:30]!r}": packed(x=member(descr, shape), y=one)
        for descr, shape, _ in parameters(of_arrays.test_a_header_is_compared_before_numbers_are_read)
    }
    found |= {f"{name} as x": npz(x=value, y=np.zeros(20)) for name, value in objects(call).items()}
    found |= {f"{name} as y": npz(x=np.zeros((20, 3)), y=value) for name, value in objects(call).items()}
    found |= {f"{name} as owner": npz(**digits(), owner=value) for name, value in objects(call).items()}
    for (x,) in parameters(of_arrays.test_arrays_that_are_no_records_are_refused):
        found[f"records of shape {x.shape}"] = npz(x=x, y=np.zeros(4, np.int64))
    found |= {
        "a pickle for an array": packed(x=programs(scene)["os.system in protocol 4"], y=one),
        "a pickle for an archive": programs(scene)["os.system in protocol 2"],
        "a bomb": lambda path: np.savez_compressed(path, x=np.zeros((400 * MIB, 1), np.uint8), y=np.zeros(2)),
        "an empty array of a long axis": packed(x=member("'<f8'", "(100000000, 0)", b""), y=one),
        "a label of 10,000,000": npz(x=np.zeros((20, 3)), y=np.array([10**7, *range(19)])),
        "a label of 2**63": npz(x=np.zeros((20, 3)), y=np.full(20, 2**63, np.uint64)),
        "a negative label": npz(x=np.zeros((20, 3)), y=np.full(20, -1)),
        "labels of NaN": npz(x=np.zeros((20, 3)), y=np.full(20, np.nan)),
        "numbers of NaN": npz(x=np.full((20, 3), np.nan), y=np.arange(20) % 2),
        "infinite numbers": npz(x=np.full((20, 3), np.inf), y=np.arange(20) % 2),
        "numbers beyond float32": npz(x=np.tile([-1e308, 0.0, 1e308], (20, 1)), y=np.arange(20) % 2),
        "a thousand and one members": packed(**{f"x{index}": one for index in range(1001)}),
        "another compression": packed(zipfile.ZIP_LZMA, x=one, y=one),
        "cut in half": whole[: len(whole) // 2],
        "cut at its end": whole[:-30],
        "empty": b"",
        "a sparse file of 2**40": sparse(2**40, b"PK\x03\x04"),
        "an owner for some": npz(**digits(), owner=np.zeros(3)),
    }
    found |= {name: content for name, content in NO_FILES.items() if name != "a folder"}
    return numbered("array", found.items(), {"plan.toml": reading("a.npz")}, "a.npz")


def scores(scene: Scene) -> list[Case]:
    """Return hostile files of recorded outputs."""
    valid = of_arrays.scores()
    found: dict[str, Content] = {
        f"changed {', '.join(changed)}: {reason[:30]}": npz(**valid | changed)
        for changed, reason, _ in parameters(of_arrays.test_scores_that_do_not_fit_are_refused)
    }
    for name, value in objects(calls(scene)["posix.system"]).items():
        found[f"{name} as member"] = npz(**valid | {"member": value})
        found[f"{name} as logits"] = npz(**valid | {"logits": value})
    found |= {
        "a bomb": lambda path: np.savez_compressed(path, member=np.zeros(800 * MIB, np.uint8), loss=np.zeros(2)),
        "a pickle": programs(scene)["os.system in protocol 0"],
        "nobody a member": npz(**valid | {"member": np.zeros(40)}),
        **NO_FILES,
    }
    cases = numbered("score file", found.items(), {"plan.toml": SCORES.format("s.npz")}, "s.npz")
    texts: dict[str, Content] = {
        f"table {index}: {reason[:30]}": text.encode("utf-8", "surrogatepass")
        for index, (text, reason, _) in enumerate(
            parameters(of_arrays.test_tables_of_scores_that_do_not_fit_are_refused)
        )
    }
    texts |= {
        "a table of 2**40": sparse(2**40, b"member,loss\n1,0\n"),
        "a table of one long number": b"member,loss\n1," + b"9" * 5_000_000,
        "a table of a formula": b"member,loss\n1,=cmd|' /C touch x'!A0\n" + ROWS.encode(),
        **NO_FILES,
    }
    cases += numbered("score file", texts.items(), {"plan.toml": SCORES.format("s.csv")}, "s.csv")
    name = "a\x1b[2J.csv"
    around = {"plan.toml": SCORES.format("a\\u001b[2J.csv")}
    return [*cases, *numbered("score file", [("a name with escapes", "member,loss\n1,0\n")], around, name)]


def tables(scene: Scene) -> list[Case]:
    """Return hostile tables."""
    valid = of_tables.VALID
    found: dict[str, Content] = {
        f"text {index}: {said[:30]}": content
        for index, (content, said) in enumerate(
            parameters(of_tables.test_text_that_is_no_table_is_refused_in_a_sentence)
        )
        if not content.startswith(b"\x1f\x8b")
    }
    for cell, _ in parameters(of_tables.test_numbers_are_decimal_and_finite):
        found[f"a number {cell[:20]!r}"] = f"{valid}{cell},north,0\n"
    for row, _ in parameters(of_tables.test_a_row_of_another_length_is_named):
        found[f"a row {row!r}"] = f"{valid}{row}\n"
    found |= {
        "two columns of one name": f"age,age,sick\n{of_tables.ROWS}",
        "a million columns": ",".join(f"{i:x}" for i in range(10**6)) + "\n",
        "a name of 5,000 characters": f"{'a' * 5000},sick\n1,0\n",
        "a row without end": "age,sick\n" + "1," * 6_000_000,
        "thousands of classes": "age,sick\n" + "".join(f"{i % 7},c{i // 2}\n" for i in range(4004)),
        "very many categories": "id,sick\n" + "".join(f"p{i},{i % 2}\n" for i in range(10**5)),
        "a text that is no category": f"{valid}20,{'x' * 300},0\n",
        "another label": "age,ill\n1,0\n",
        "a sparse file of 2**40": sparse(2**40, valid.encode()),
        "a pickle": programs(scene)["os.system in protocol 2"],
        **{name: content for name, content in NO_FILES.items() if name != "a folder"},
    }
    cases = numbered("table", found.items(), labelled("t.csv"), "t.csv")
    packed: dict[str, Content] = {
        "no gzip": b"\x1f\x8bage,sick",
        "gzip, cut": gzip.compress(valid.encode())[:-9],
        "a bomb of short rows": b"".join([gzip.compress(b"age,sick\n"), bomb(b"1,0\n" * (MIB // 4), 400)]),
        "a bomb of one row": bomb(b"a" * MIB, 4000),
        "a bomb of blank lines": bomb(b"\n" * MIB, 4000),
        "a bomb of commas": bomb(b"," * MIB, 1000),
        "a bomb in quotes": b"".join([gzip.compress(b'age,sick\n1,"'), bomb(b"x\n" * (MIB // 2), 1000)]),
        "a bomb in a bomb": gzip.compress(bomb(b"1,0\n" * (MIB // 4), 400)),
        "a pickle": gzip.compress(programs(scene)["os.system in protocol 0"]),
    }
    cases += numbered("table", packed.items(), labelled("t.csv.gz"), "t.csv.gz")
    return cases + numbered("table", _parquet(scene).items(), labelled("t.parquet"), "t.parquet")


def labelled(name: str) -> dict[str, Content]:
    """Return a plan that trains on a table."""
    return {"plan.toml": reading(name, 'label = "sick"\n')}


def _parquet(scene: Scene) -> dict[str, Content]:
    def written(**columns: Any) -> bytes:
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file)
        return file.getvalue()

    sick = ["no", "yes"]
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(9000, np.int32)), pa.array(["x" * MIB]))
    valid = written(age=[1, 2] * 20, sick=sick * 20)
    found: dict[str, Content] = {
        f"a column of {values.type}": written(odd=values, sick=sick)
        for (values,) in parameters(of_parquet.test_nested_and_binary_columns_are_refused)
    }
    for index, (content,) in enumerate(parameters(of_parquet.test_bytes_that_are_no_parquet_are_refused)):
        found[f"no parquet, {index}"] = content
    return found | {
        "a text of 1 MiB, 9,000 times": written(text=many, sick=pa.array(np.arange(9000) % 2)),
        "a number, 10**9 times": _numbers,
        "half of it": valid[: len(valid) // 2] + valid[-8:],
        "a footer of 2**31": valid[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "texts that are no UTF-8": written(ward=["SURROGATE", "b"], sick=sick).replace(
            b"SURROGATE", b"\xed\xa0\x80" * 3
        ),
        "a pickle behind its name": b"PAR1" + programs(scene)["os.system in protocol 2"] + b"PAR1",
    }


def _numbers(path: Path) -> None:
    zeros = pa.array(np.zeros(50 * 10**6))
    with pq.ParquetWriter(path, pa.schema([("age", pa.float64()), ("sick", pa.float64())])) as file:
        for _ in range(20):
            file.write_table(pa.table({"age": zeros, "sick": zeros}), row_group_size=50 * 10**6)


def images(scene: Scene) -> list[Case]:
    """Return hostile folders of images."""
    png = of_images.encoded("PNG")
    frames = [of_images.Pillow.fromarray(255 - of_images.PIXELS)]
    found: dict[str, Content] = {
        f"damaged {index}": content
        for index, (content,) in enumerate(parameters(of_images.test_damaged_images_are_refused_in_a_sentence))
    }
    postscript = of_images.EPS.replace(b"showpage", b"(%pipe%" + scene.shell.encode() + b") (w) file showpage")
    for kind in ("PNG", "WEBP", "TIFF"):
        found[f"an animation, {kind}"] = of_images.encoded(kind, save_all=True, append_images=frames)
    for kind in ("GIF", "ICO", "PDF", "TGA", "PCX", "SGI", "DDS"):
        found[f"a {kind}"] = of_images.encoded(kind)
    found |= {
        "PostScript": postscript,
        "PostScript behind a DOS header": b"\xc5\xd0\xd3\xc6"
        + struct.pack("<II", 32, len(postscript))
        + bytes(20)
        + postscript,
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "a push of graphic context": b"push graphic-context\nfill 'url(https://x/\"|touch x\")'\n",
        "a size of 30,000": of_images.png(30_000, 30_000),
        "a size of 2**31": of_images.png(2**31 - 1, 2**31 - 1),
        "a size of 0": of_images.png(0, 8),
        "no numbers behind the header": png[:40],
        "a bomb of text": _with_text(png),
        "a TIFF of itself": b"II*\0\x08\0\0\0"
        + b"\x01\0"
        + struct.pack("<HHII", 0x14A, 4, 1, 8)
        + struct.pack("<I", 8),
        "a PPM of 10**9": b"P6 1000000000 1 255\n" + bytes(99),
        "a file of 257 MiB": sparse(257 * MIB, png),
        "a pickle": programs(scene)["os.system in protocol 4"],
        "another size": of_images.encoded("PNG")[:0] + of_images.png(9, 8),
        **{name: content for name, content in NO_FILES.items() if name != "a folder"},
    }
    around = {"plan.toml": reading("pets/"), "pets/cat/0.png": png, "pets/dog/0.png": png}
    cases = numbered("images", found.items(), around, "pets/dog/1.png")
    for name in ("1.eps", "1.ps", "1.jpg", "1.tiff"):
        cases += numbered("images", [(f"PostScript as {name}", postscript)], around, f"pets/dog/{name}")
    first = {**around, "pets/cat/0.png": of_images.png(13_000, 13_000), "pets/dog/0.png": of_images.png(13_000, 13_000)}
    loop = {"plan.toml": reading("pets/"), "pets/dog/0.png": link("0.png"), "pets/cat": link("..")}
    return [*cases, Case("images", "all of 13,000 x 13,000", first), Case("images", "a folder in itself", loop)]


def _with_text(png: bytes) -> bytes:
    """A PNG with compressed text of 200 MiB before its pixels."""
    body = b"Comment\0\0" + bomb(b"a" * MIB, 200)
    return png[:33] + of_images._chunk(b"zTXt", body) + png[33:]


def sealed(scene: Scene) -> list[Case]:
    """Return hostile sealed files."""
    valid = of_arrays.sealed()
    found: dict[str, Content] = {
        f"{name} as {value!r}"[:60]: of_arrays.sealed(**{name: value})
        for (changed,) in parameters(of_arrays.test_a_commitment_that_fits_makes_no_lie_true)
        for name, value in changed.items()
    }
    coins = digits() | {"coins": np.zeros(20)}
    for (header,) in parameters(of_arrays.test_a_header_that_is_none_is_refused):
        found[f"a header of {header[:20]!r}"] = npz(**coins, header=np.frombuffer(header, np.uint8))
    for name, value in objects(calls(scene)["posix.system"]).items():
        found[f"{name} as coins"] = npz(**coins | {"coins": value, "header": np.frombuffer(FORMAT.encode(), np.uint8)})
        found[f"{name} as a header"] = npz(**coins, header=value)
    found |= {
        "a pickle": programs(scene)["os.system in protocol 5"],
        "coins that were turned": _turned(valid),
        "cut": valid[:-40],
        "empty": b"",
        "a bomb": _sealed_bomb,
        "a sparse file of 2**40": sparse(2**40, b"PK\x03\x04"),
    }
    cases = [
        Case("sealed", name, {"plan.toml": SEALED, "coins.sealed": _closed(content)}) for name, content in found.items()
    ]
    cases += numbered("sealed", NO_FILES.items(), {"plan.toml": SEALED}, "coins.sealed")
    opened = {"plan.toml": SEALED, "coins.sealed": valid}
    return [*cases, Case("sealed", "a file that others can read", opened), *_planted(valid)]


def _closed(content: Content) -> Content:
    def make(path: Path) -> None:
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o600)

    return make


def _sealed_bomb(path: Path) -> None:
    about = {"header": np.zeros(1, np.uint8), "coins": np.zeros(2), "y": np.zeros(2)}
    with path.open("wb") as file:
        np.savez_compressed(file, x=np.zeros(800 * MIB, np.uint8), **about)


def _turned(valid: bytes) -> bytes:
    with np.load(io.BytesIO(valid)) as file:
        found = dict(file)
    return npz(**found | {"coins": 1 - found["coins"]})


def _planted(valid: bytes) -> list[Case]:
    """What lies beside planted data, and is read along with a sealed file that is true."""
    plan = SEALED.replace('canaries = "coins.sealed"', 'canaries = "coins.sealed"\ndata = "planted"')
    public: dict[str, Content] = {
        "deep JSON": "[" * 100_000,
        "no commitment": "{}",
        "a commitment of escapes": '{"commitment": "\\u001b[2J"}',
        "a commitment of a list": '{"commitment": [[1]]}',
        "JSON of 60 MB": sparse(60 * 10**6),
        "a number of 5,000 digits": "9" * 5000,
        "no UTF-8": b"\xff\xfe{}",
    }
    public["a FIFO"] = os.mkfifo
    around = {"plan.toml": plan, "coins.sealed": _closed(valid)}
    cases = numbered("sealed", public.items(), around, "planted/planted.json")
    plant = ("plant", "digits", "--out", "planted", "--secret", "coins.sealed", "--canaries", "60", "--quiet")
    cases += [
        Case("sealed", f"planted already, {case.name}", case.files, plant)
        for case in cases
        if "planted/planted.json" in case.files
    ]
    return cases
