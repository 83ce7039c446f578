import gzip
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor import datasets
from auditor.datasets import load
from auditor.datasets.schema import decode
from defenses.errors import DataError
from defenses.records import Image, Records, Table


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_idx(path: Path, array: np.ndarray, *, packed: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    raw = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
    else:
        path.write_bytes(raw)


def schema_of(records: Records) -> Table:
    assert isinstance(records.kind, Table)
    return records.kind


# --- sets known by name, on the real files


@pytest.mark.parametrize(
    ("name", "split", "shape", "counts"),
    [
        ("mnist", "test", (10_000, 1, 28, 28), None),
        ("fashion_mnist", "train", (60_000, 1, 28, 28), [6000] * 10),
        ("fashion_mnist", "all", (70_000, 1, 28, 28), [7000] * 10),
        ("cifar10", "test", (10_000, 3, 32, 32), [1000] * 10),
        ("cifar10_first4000", "all", (4000, 3, 32, 32), [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]),
        ("olivetti", "all", (400, 1, 64, 64), [10] * 40),
        ("medical_mnist", "all", (8973, 1, 64, 64), [1489, 1500, 1500, 1500, 1500, 1484]),
        ("pneumoniamnist", "train", (2428, 1, 28, 28), [1214, 1214]),
        ("pneumoniamnist", "test", (468, 1, 28, 28), [234, 234]),
        ("pneumoniamnist", "all", (3166, 1, 28, 28), [1583, 1583]),
        ("adult", "train", (32_561, 107), [24_720, 7841]),
        ("adult", "test", (16_281, 107), [12_435, 3846]),
        ("adult", "all", (48_842, 107), [37_155, 11_687]),
        ("location30", "all", (5010, 446), None),
        ("german", "all", (1000, 63), [700, 300]),
        ("heart", "all", (303, 30), [164, 139]),
        ("compas", "all", (7214, 15), [3963, 3251]),
    ],
)
def test_real_sets_have_their_published_sizes(
    data_dir: Path, name: str, split: datasets.Part, shape: tuple[int, ...], counts: list[int] | None
) -> None:
    records = load(name, split=split, data_dir=data_dir, download=False)
    assert records.x.shape == shape
    assert records.x.min() >= 0
    assert records.x.max() <= 1
    if counts is not None:
        assert np.bincount(records.y, minlength=records.classes).tolist() == counts
    if isinstance(records.kind, Table):
        assert records.kind.public_domain
        assert len(records.kind.classes) == records.classes
    else:
        assert records.kind == Image(0.0, 1.0)


def test_location30_has_the_published_density_and_class_sizes(data_dir: Path) -> None:
    records = load("location30", data_dir=data_dir)
    counts = np.bincount(records.y, minlength=30)
    assert (counts.min(), counts.max(), records.classes) == (97, 308, 30)
    assert records.x.mean() == pytest.approx(0.1204, abs=5e-5)
    assert set(np.unique(records.x)) == {0.0, 1.0}


@pytest.mark.slow
def test_jpeg_copy_of_cifar10_is_named_as_such_and_close_to_the_exact_pixels(data_dir: Path) -> None:
    exact = load("cifar10_first4000", data_dir=data_dir)
    with np.load(data_dir / "cifar10/cifar10_lossless_first4000.npz") as arrays:
        rows = arrays["jpeg_row"]
    lossy = load("cifar10", data_dir=data_dir)
    assert lossy.name == "CIFAR-10 (JPEG re-encoded)"
    assert len(lossy) == 50_000
    assert (lossy.y[rows] == exact.y).all()
    # Published: 5.8 of 255; swapped channels or axes would be far off.
    assert np.abs(lossy.x[rows] - exact.x).mean() * 255 == pytest.approx(5.8, abs=0.1)


def test_olivetti_knows_whose_face_it_is(data_dir: Path) -> None:
    records = load("olivetti", data_dir=data_dir)
    assert records.owner is not None
    assert (records.owner == np.repeat(np.arange(40), 10)).all()


def test_adult_decodes_to_its_source(data_dir: Path) -> None:
    records = load("adult", data_dir=data_dir)
    rows = decode(records.x[:200], schema_of(records))
    names = [*rows.columns[:2], "fnlwgt", *rows.columns[2:], "income"]
    source = pd.read_csv(data_dir / "adult/adult.data.gz", names=names, skipinitialspace=True, nrows=200)
    for column in rows:
        if rows[column].dtype == np.float64:
            np.testing.assert_allclose(rows[column], source[column], rtol=1e-5, atol=5e-3)
        else:
            assert rows[column].tolist() == source[column].tolist()


def test_the_environment_names_the_data_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_DATA", str(data_dir))
    assert len(load("german")) == 1000


def test_bundled_sets_need_no_files() -> None:
    digits, tumours = load("digits"), load("breast-cancer", split="all")
    assert digits.x.shape == (1797, 1, 8, 8)
    assert (digits.x.min(), digits.x.max(), digits.classes) == (0.0, 1.0, 10)
    assert tumours.x.shape == (569, 30)
    assert np.bincount(tumours.y).tolist() == [212, 357]
    assert schema_of(tumours).classes == ("malignant", "benign")
    assert not schema_of(tumours).public_domain


def test_named_sets_must_be_encoded_like_the_records_that_are_named() -> None:
    digits = load("digits")
    assert load("digits", like=digits).digest == digits.digest
    with pytest.raises(DataError, match=r"breast_cancer holds records of shape \(30,\), digits of \(1, 8, 8\)"):
        load("breast_cancer", like=digits)


def test_names_have_one_line_each_and_cost_no_heavy_import() -> None:
    listed = datasets.names()
    assert {"digits", "breast_cancer", "mnist", "fashion_mnist", "cifar10", "adult", "location30"} <= listed.keys()
    assert all(summary and "\n" not in summary for summary in listed.values())
    code = (
        "import sys; from auditor import datasets; datasets.names(); "
        "sys.exit(bool({'torch', 'torchvision', 'sklearn', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- where data sets are looked for


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    pixels = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    for prefix, labels in (("train", [7, 0, 9]), ("t10k", [1, 2, 3])):
        write_idx(tmp_path / f"MNIST/raw/{prefix}-images-idx3-ubyte", pixels, packed=packed)
        write_idx(tmp_path / f"MNIST/raw/{prefix}-labels-idx1-ubyte", np.array(labels, np.uint8), packed=packed)
    records = load("mnist", split="all", data_dir=tmp_path)
    np.testing.assert_array_equal(records.x[:3, 0], pixels.astype(np.float32) / 255)
    assert records.y.tolist() == [7, 0, 9, 1, 2, 3]


@pytest.mark.parametrize("damage", ["truncated", "not idx", "half a gzip"])
def test_damaged_idx_files_are_named(tmp_path: Path, damage: str) -> None:
    images = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    write_idx(images, np.zeros((2, 28, 28), np.uint8), packed=False)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(2, np.uint8), packed=False)
    whole = images.read_bytes()
    images.write_bytes(
        {"truncated": whole[:-1], "not idx": b"<html>", "half a gzip": gzip.compress(whole)[:30]}[damage]
    )
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte .*get it again"):
        load("mnist", data_dir=tmp_path)


def test_a_missing_set_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("fashion_mnist", data_dir=tmp_path, download=False)
    sentence = str(caught.value)
    assert "FashionMNIST/raw/train-images-idx3-ubyte" in sentence
    assert str(tmp_path) in sentence
    assert "switched off" in sentence
    assert "\n" not in sentence
    with pytest.raises(DataError, match=r"cifar10_jpeg_train\.npz"):
        load("cifar10", data_dir=tmp_path, download=False)
    with pytest.raises(DataError, match="cannot be downloaded"):
        load("adult", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "olivetti"])
def test_a_failed_download_is_one_sentence_and_silent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError, match=r"is not there: looked for .* and the download failed \(.*not known") as caught:
        load(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_a_data_directory_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no-such.*data_dir"):
        load("mnist", data_dir=tmp_path / "no-such")
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path / "no-such"))
    with pytest.raises(DataError, match=r"no-such.*AUDITOR_DATA"):
        load("mnist")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.target), "w")


def test_cifar_batches_that_are_not_the_published_ones_are_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(DataError, match="not the published CIFAR-10"):
        load("cifar10", data_dir=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_official_cifar_batches_are_read_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision
    from torchvision.datasets.utils import calculate_md5

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    files = {
        "data_batch_1": {"data": pixels, "labels": [3, 9]},
        "test_batch": {"data": pixels, "labels": [1, 2]},
        "batches.meta": {"label_names": [str(code) for code in range(10)]},
    }
    for name, held in files.items():
        (folder / name).write_bytes(pickle.dumps(held))
    md5 = {name: calculate_md5(str(folder / name)) for name in files}
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5["batches.meta"]})
    records = load("cifar10", split="all", data_dir=tmp_path)
    assert records.name == "CIFAR-10"
    assert records.y.tolist() == [3, 9, 1, 2]
    np.testing.assert_array_equal(records.x[0].ravel(), pixels[0].astype(np.float32) / 255)


def test_wrong_names_and_arguments_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'fashion-mnits'; did you mean 'fashion_mnist'\?; known: 'digits'"):
        load("fashion-mnits")
    with pytest.raises(DataError, match=r"no file or folder .*members\.csv"):
        load(tmp_path / "members.csv")
    with pytest.raises(ValueError, match="choose 'train', 'test' or 'all'"):
        load("digits", split="validation")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="published as one pool"):
        load("digits", split="test")
    with pytest.raises(ValueError, match=r"label does not apply to digits"):
        load("digits", label="digit")
    other = tmp_path / "records.txt"
    other.write_text("x")
    with pytest.raises(DataError, match=r"no known kind; give \.npz"):
        load(other)


# --- the two sides of a checkpoint audit


def test_sides_that_cannot_be_compared_are_refused() -> None:
    digits = load("digits")
    members, nonmembers = digits.take(np.arange(100)), digits.take(np.arange(900, 1000))
    datasets.check_records(members, nonmembers, classes=10, shape=(1, 8, 8))
    with pytest.raises(DataError, match=r"nonmembers \(digits\) hold 3 records; each side needs at least 10"):
        datasets.check_records(members, nonmembers.take(np.arange(3)))
    with pytest.raises(DataError, match=r"members \(digits\) hold 0 records"):
        datasets.check_records(members.take(np.arange(0)), nonmembers)
    with pytest.raises(DataError, match=r"have shape \(1, 8, 8\), the architecture takes \(1, 28, 28\)"):
        datasets.check_records(members, nonmembers, shape=(1, 28, 28))
    with pytest.raises(DataError, match=r"have label 5 in record 5, but the model has 5 outputs \(labels 0\.\.4\)"):
        datasets.check_records(members, nonmembers, classes=5)
    with pytest.raises(DataError, match=r"members .* shape \(1, 8, 8\), nonmembers .* \(1, 4, 8\)"):
        datasets.check_records(members, replace(nonmembers, x=nonmembers.x[:, :, :4]))
    with pytest.raises(DataError, match="different value ranges"):
        datasets.check_records(members, replace(nonmembers, kind=Image(-1.0, 1.0)))
    both = digits.take(np.concatenate([np.arange(900, 980), np.arange(20)]))
    with pytest.raises(DataError, match=r"20 of 100 nonmembers .* records 80, 81, 82, .* and 12 more"):
        datasets.check_records(members, both)
