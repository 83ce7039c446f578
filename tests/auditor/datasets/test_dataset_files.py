import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from auditor.datasets import load
from auditor.datasets.schema import categorical, decode, encode, numeric, table
from defenses.errors import DataError
from defenses.records import Image, Records, Table


def schema_of(records: Records) -> Table:
    assert isinstance(records.kind, Table)
    return records.kind


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.target), "w")


# --- tables of one's own

PATIENTS = pd.DataFrame(
    {
        "age": [20, 40, 60, 80],
        "ward": ["north", "south", None, "north"],
        "code": [1, 2, 2, 1],
        "smokes": [True, False, False, True],
        "sick": ["no", "yes", "yes", "no"],
    }
)


@pytest.fixture(params=["csv", "csv.gz", "parquet"])
def patients(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"members.{request.param}"
    PATIENTS.to_parquet(path) if request.param == "parquet" else PATIENTS.to_csv(path, index=False)
    return path


def test_a_table_is_encoded_by_its_schema_and_decoded_again(patients: Path) -> None:
    records = load(patients, label="sick", ranges={"age": (0, 100)}, categories={"code": []})
    assert records.name == "members"
    assert records.y.tolist() == [0, 1, 1, 0]
    schema = schema_of(records)
    assert [column.name for column in schema.columns] == ["age", "ward", "code", "smokes"]
    assert [column.categories for column in schema.columns] == [
        (),
        ("north", "south", "?"),
        ("1", "2"),
        ("False", "True"),
    ]
    assert [column.start for column in schema.columns] == [0, 1, 4, 6]
    assert not schema.public_domain
    np.testing.assert_array_equal(records.x[2], np.array([0.6, 0, 0, 1, 0, 1, 1, 0], dtype=np.float32))
    rows = decode(records.x, schema)
    np.testing.assert_allclose(rows["age"], PATIENTS["age"], rtol=1e-6)
    assert rows["ward"].tolist() == ["north", "south", "?", "north"]


def test_a_schema_that_owes_nothing_to_the_data_is_public(patients: Path) -> None:
    records = load(
        patients,
        label="sick",
        exclude=["code", "smokes"],
        ranges={"age": (30, 70)},
        categories={"ward": ["south", "east", "north", "?"]},
        classes=["yes", "no"],
    )
    assert schema_of(records).public_domain
    assert records.y.tolist() == [1, 0, 0, 1]
    assert records.x[:, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_two_files_share_one_schema(patients: Path, tmp_path: Path) -> None:
    members = load(patients, label="sick", categories={"code": []})
    other = tmp_path / "nonmembers.csv"
    pd.DataFrame({"sick": ["yes"], "smokes": [False], "code": [2], "ward": ["south"], "age": [200]}).to_csv(other)
    nonmembers = load(other, label="sick", categories={"code": []}, like=members)
    assert nonmembers.kind == members.kind
    assert nonmembers.x.tolist() == [[1, 0, 1, 0, 0, 1, 1, 0]]
    assert nonmembers.y.tolist() == [1]

    for column, value, sentence in (
        ("ward", "west", r"'ward' holds 'west' in record 0 .*its values are 'north', 'south', '\?'"),
        ("sick", "maybe", r"'sick' holds 'maybe' in record 0"),
        ("age", "old", r"'age' holds 'old' in record 0, and the schema says it is a number in \[20, 80\]"),
        ("age", None, r"'age' holds no number in record 0"),
        ("smokes", None, r"'smokes' holds nothing in record 0"),
    ):
        pd.read_csv(other, dtype=object).assign(**{column: value}).to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(DataError, match=sentence):
            load(tmp_path / "bad.csv", like=members)
    pd.read_csv(other).drop(columns="age").to_csv(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="column 'age' is missing"):
        load(tmp_path / "bad.csv", like=members)
    with pytest.raises(ValueError, match=r"ranges of 'age' is not what members was loaded with"):
        load(other, like=members, ranges={"age": (0, 1)})
    with pytest.raises(ValueError, match="digits holds images"):
        load(other, like=load("digits"))


@pytest.mark.parametrize(
    ("columns", "arguments", "error", "sentence"),
    [
        ({}, {}, ValueError, "give label, one of 'age'"),
        ({}, {"label": "sik"}, ValueError, r"label: .* no column 'sik'; did you mean 'sick'\?"),
        ({}, {"label": "sick", "ranges": {"agee": (0, 1)}}, ValueError, r"ranges: .*'agee'; did you mean 'age'"),
        ({}, {"label": "sick", "ranges": {"age": (5, 5)}}, ValueError, r"'age' is \(5, 5\); give two finite numbers"),
        ({}, {"label": "sick", "ranges": {"ward": (0, 5)}}, ValueError, "'ward' .* is not numeric"),
        ({}, {"label": "sick", "exclude": ["nme"]}, ValueError, "exclude: .*'nme'"),
        ({}, {"label": "sick", "exclude": ["age", "ward"]}, DataError, "no column left"),
        ({}, {"label": "sick", "value_range": (0, 1)}, ValueError, "value_range does not apply"),
        ({}, {"label": "sick", "classes": 2}, ValueError, "needs the label values"),
        ({"name": [f"p{i}" for i in range(40)]}, {"label": "sick"}, DataError, "40 different texts .*exclude"),
        ({"row": range(40)}, {"label": "sick"}, DataError, "'row' counts the rows .*exclude"),
        ({"bmi": [21.5, None] * 20}, {"label": "sick"}, DataError, "'bmi' holds no number in record 1 .20 such"),
        ({"bmi": [21.5, np.inf] * 20}, {"label": "sick"}, DataError, "'bmi' holds an infinite number in record 1"),
        ({"bmi": np.linspace(1, 2, 40)}, {"label": "bmi"}, DataError, "40 different values .*too many for classes"),
        ({"sick": ["no", None] * 20}, {"label": "sick"}, DataError, "label 'sick' is missing in record 1"),
        ({}, {"label": "sick", "classes": ["no"]}, DataError, "'sick' holds 'yes' in record 1"),
    ],
)
def test_tables_that_cannot_be_encoded_say_why(
    tmp_path: Path, columns: dict[str, object], arguments: dict[str, object], error: type[Exception], sentence: str
) -> None:
    frame = pd.DataFrame({"age": [30, 50] * 20, "ward": ["a", "b"] * 20, "sick": ["no", "yes"] * 20}).assign(**columns)
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(error, match=sentence):
        load(tmp_path / "table.csv", **arguments)  # type: ignore[arg-type]


def test_a_row_number_is_taken_with_a_stated_range(tmp_path: Path) -> None:
    pd.DataFrame({"hour": range(24), "late": ["no"] * 20 + ["yes"] * 4}).to_csv(tmp_path / "day.csv", index=False)
    assert load(tmp_path / "day.csv", label="late", ranges={"hour": (0, 23)}).x[23] == 1


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"a,b\n1,2,3\n4,5,6,7\n", b"\xff\xfe\x00\x01,b\n1,2\n"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_unreadable_tables_are_named(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"broken.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken\.{ending}") as caught:
        load(path, label="b")
    assert "\n" not in str(caught.value)


def test_schema_declared_by_hand_round_trips() -> None:
    schema = table(numeric("t", -5, 15), categorical("c", "x", "y"), label="k", classes=("0", "1"))
    frame = pd.DataFrame({"k": [1.0, 0.0], "c": ["y", "x"], "t": [5.0, 99.0]})
    records = encode(frame, schema, name="set")
    assert records.x.tolist() == [[0.5, 0, 1], [1.0, 1, 0]]
    assert records.y.tolist() == [1, 0]
    assert decode(records.x, schema).to_dict("list") == {"t": [5.0, 15.0], "c": ["y", "x"]}
    with pytest.raises(ValueError, match=r"decodes \(n, 3\)"):
        decode(records.x[:, :2], schema)


# --- arrays of one's own


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3), (4, 3, 5, 6), (4, 1, 5, 6), (4, 5, 6, 1)])
def test_byte_images_become_channels_first_in_the_unit_interval(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    records = load(save(tmp_path / "a.npz", x=x, y=np.array([0, 1, 2, 1])))
    channels = 3 if 3 in shape[1:] else 1
    assert records.shape == (channels, 5, 6)
    assert records.kind == Image(0.0, 1.0)
    assert records.classes == 3
    if shape == (4, 5, 6, 3):
        np.testing.assert_array_equal(records.x, x.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def test_float_arrays_need_a_range_that_is_evident_or_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (6, 1, 4, 4))
    path, y = tmp_path / "a.npz", np.array([0, 1] * 3)
    save(path, x=x, y=y)
    with pytest.raises(DataError, match=r"give value_range=\(low, high\)"):
        load(path)
    with pytest.raises(DataError, match=r"outside the range \(0, 1\)"):
        load(path, value_range=(0, 1))
    with pytest.raises(ValueError, match="the smaller first"):
        load(path, value_range=(1, -1))
    np.testing.assert_allclose(load(path, value_range=(-1, 1)).x, (x + 1) / 2, rtol=1e-5)
    kept = load(path, value_range=(-1, 1), rescale=False)
    assert kept.kind == Image(-1, 1)
    np.testing.assert_array_equal(kept.x, x.astype(np.float32))
    save(path, x=np.abs(x), y=y)
    assert load(path).kind == Image(0.0, 1.0)


def test_rows_of_numbers_become_a_table(tmp_path: Path) -> None:
    x = np.array([[-2.0, 0.5], [2.0, 1.0]])
    path = save(tmp_path / "a.npz", x=x, y=np.array([[0], [2]]), owner=np.array([7, 7]), cluster=np.array([0, 1]))
    records = load(path, value_range=(-2, 2), classes=4)
    assert records.x.tolist() == [[0, 0.625], [1, 0.75]]
    assert records.classes == 4
    assert schema_of(records).public_domain
    assert records.owner is not None
    assert records.owner.tolist() == [7, 7]
    assert decode(records.x, schema_of(records)).to_numpy().tolist() == x.tolist()
    raw = load(path, rescale=False)
    assert raw.x.tolist() == x.tolist()
    assert decode(raw.x, schema_of(raw)).to_numpy().tolist() == x.tolist()
    assert load(path, rescale=False, like=raw).kind == raw.kind
    with pytest.raises(DataError, match="do not have the same range and classes"):
        load(path, value_range=(-2, 2), like=raw)


@pytest.mark.parametrize(
    ("arrays", "arguments", "sentence"),
    [
        ({"x": np.zeros((2, 3))}, {}, "has no array 'y'; it needs x, y and holds x"),
        ({"x": np.zeros((2, 3)), "y": np.array([1, 2])}, {}, "labels begin at 1"),
        ({"x": np.zeros((2, 3)), "y": np.array([0, 5])}, {"classes": 3}, r"label 5 is outside 0\.\.2"),
        ({"x": np.zeros((2, 3)), "y": np.array([0, -1])}, {}, "label -1 is outside"),
        ({"x": np.zeros((2, 3)), "y": np.array([0.5, 1])}, {}, "y is float64; save whole numbers"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3, int)}, {}, r"y has shape \(3,\) and x 2 records"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0, int)}, {}, "at least 1"),
        ({"x": np.array([[0.0], [np.nan]]), "y": np.array([0, 1])}, {}, "not finite in record 1"),
        ({"x": np.array([[0.0], [1e300]]), "y": np.array([0, 1])}, {"rescale": False}, "not finite in record 1"),
        ({"x": np.zeros((2, 5, 5, 5), np.uint8), "y": np.array([0, 1])}, {}, "which axis holds the channels"),
        ({"x": np.zeros((2, 3, 5, 3), np.uint8), "y": np.array([0, 1])}, {}, "which axis holds the channels"),
        ({"x": np.array([["a"], ["b"]]), "y": np.array([0, 1])}, {}, "save real numbers"),
    ],
)
def test_arrays_that_do_not_say_what_they_are_are_refused(
    tmp_path: Path, arrays: dict[str, object], arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        load(save(tmp_path / "a.npz", **arrays), **arguments)  # type: ignore[arg-type]


def test_pickled_arrays_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Bomb(tmp_path / "exploded")], dtype=object), y=np.array([0]))
    with pytest.raises(DataError, match="pickled objects"):
        load(path)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(DataError, match=r"pickled objects|not a readable"):
        load(path)
    assert not (tmp_path / "exploded").exists()
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load(path)


# --- folders of images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 2), ("dog", 3)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(count):
            Pillow.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(
                tmp_path / "pets" / name / f"{index}.png"
            )
    (tmp_path / "pets" / ".hidden").mkdir()
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path / "pets"


def test_a_folder_of_images_is_read_by_class(folder: Path) -> None:
    records = load(folder)
    assert records.x.shape == (5, 3, 5, 4)
    assert records.y.tolist() == [0, 0, 1, 1, 1]
    assert (records.name, records.classes, records.kind) == ("pets", 2, Image(0.0, 1.0))
    with Pillow.open(folder / "dog" / "0.png") as image:
        np.testing.assert_array_equal(records.x[2], np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255)
    assert load(folder, classes=["emu", "dog", "cat"]).y.tolist() == [2, 2, 1, 1, 1]


def test_two_folders_share_one_order_of_classes(folder: Path) -> None:
    members = load(folder, classes=["emu", "dog", "cat"])
    assert load(folder, classes=["emu", "dog", "cat"], like=members).digest == members.digest
    with pytest.raises(ValueError, match=r"give their names in order, .*classes=\['cat', 'dog'\]"):
        load(folder, like=members)
    with pytest.raises(DataError, match="sub-folder 'dog' is not one of the classes 'cat'"):
        load(folder, classes=["cat"])


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (Pillow.new("RGB", (4, 6)), r"odd\.png is 4 x 6 colour, but 0\.png is 4 x 5 colour"),
        (Pillow.new("L", (4, 5)), r"odd\.png is 4 x 5 grey, but 0\.png is 4 x 5 colour"),
        (Pillow.new("RGBA", (4, 5)), r"odd\.png has mode RGBA; convert"),
        (None, r"odd\.png is not a readable image"),
    ],
)
def test_images_that_do_not_match_are_named(folder: Path, image: Pillow.Image | None, sentence: str) -> None:
    path = folder / "dog" / "odd.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n") if image is None else image.save(path)
    with pytest.raises(DataError, match=sentence):
        load(folder)


def test_folders_without_classes_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sub-folders with images"):
        load(folder / "cat")
    with pytest.raises(DataError, match="name the folder of one split"):
        load(tmp_path)
    (folder / "emu").mkdir()
    with pytest.raises(DataError, match="emu holds no images"):
        load(folder)


def test_text_among_numbers_is_named_and_not_taken_for_a_category(tmp_path: Path) -> None:
    rows = [f"{20 + i % 9},{i % 2}" for i in range(50)]
    rows[7] = "abc,1"
    path = tmp_path / "ages.csv"
    path.write_text("age,sick\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="'abc' in record 7"):
        load(path, label="sick")
    assert load(path, label="sick", categories={"age": []}).shape[0] > 1
