"""Image data sets known by name: pixels in [0, 1], (n, channels, height, width)."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.datasets.data_directory import DataDirectory, DataSet, Part
from auditor.datasets.pixels import Bytes, channels_first, decode_jpeg, read_idx, unit_interval
from auditor.files.npz import read_npz
from defenses.errors import DataError
from defenses.records import Image, Records

_BOTH = ("train", "test")


def _records(pixels: Bytes, labels: npt.NDArray[np.generic], *, classes: int, name: str) -> Records:
    return Records(
        unit_interval(channels_first(pixels, name)),
        labels.ravel().astype(np.int64),
        classes,
        Image(0.0, 1.0),
        name=name,
    )


def _parts(part: Part) -> tuple[str, ...]:
    return _BOTH if part == "all" else (part,)


def _idx(folder: str, name: str) -> Callable[[DataDirectory, Part], Records]:
    """Make a reader for a set in the layout of MNIST, which torchvision also downloads."""

    def fetch(root: Path) -> None:
        import torchvision

        getattr(torchvision.datasets, folder)(str(root), download=True)

    def read(shelf: DataDirectory, part: Part) -> Records:
        pixels, labels = [], []
        for prefix in ({"train": "train", "test": "t10k"}[one] for one in _parts(part)):
            stem = f"{folder}/raw/{prefix}"
            images, digits = shelf.obtain(
                f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte", fetch=fetch, name=name
            )
            pixels.append(read_idx(images))
            labels.append(read_idx(digits))
        return _records(_joined(pixels), _joined(labels), classes=10, name=name)

    return read


def _joined(arrays: list[Bytes]) -> Bytes:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _fetch_cifar10(root: Path) -> None:
    import torchvision

    torchvision.datasets.CIFAR10(str(root), download=True)


def _cifar10(shelf: DataDirectory, part: Part) -> Records:
    official = "cifar-10-batches-py/batches.meta"
    packed = [f"cifar10/cifar10_jpeg_{one}.npz" for one in _parts(part)]
    if shelf.find(official) is None and (files := shelf.find(*packed)) is not None:
        pixels, labels = [], []
        for file in files:
            arrays = read_npz(file, "jpeg", "offsets", "y")
            pixels.append(decode_jpeg(arrays["jpeg"], arrays["offsets"], side=32, source=str(file)))
            labels.append(arrays["y"])
        # The pixels differ from CIFAR-10's by about 6 of 255, so the report must not call them CIFAR-10.
        return _records(_joined(pixels), _joined(labels), classes=10, name="CIFAR-10 (JPEG re-encoded)")

    (meta,) = shelf.obtain(official, fetch=_fetch_cifar10, name="CIFAR-10", instead=" and ".join(packed))
    import torchvision

    root = meta.parent.parent
    try:
        # The batches are pickles: only torchvision opens them, after it has compared their md5 with the published ones.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = [torchvision.datasets.CIFAR10(str(root), train=one == "train") for one in _parts(part)]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{meta.parent} is incomplete or not the published CIFAR-10 ({str(error).splitlines()[0]}); delete the "
            f"folder and get it again"
        ) from None
    return _records(
        _joined([one.data for one in read]), np.concatenate([one.targets for one in read]), classes=10, name="CIFAR-10"
    )


def _cifar10_first4000(shelf: DataDirectory, part: Part) -> Records:
    name = "CIFAR-10 (first 4,000 training images)"
    (file,) = shelf.obtain("cifar10/cifar10_lossless_first4000.npz", fetch=None, name=name)
    arrays = read_npz(file, "X", "y")
    return _records(arrays["X"], arrays["y"], classes=10, name=name)


def _digits(shelf: DataDirectory, part: Part) -> Records:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    return Records(x, digits.target.astype(np.int64), 10, Image(0.0, 1.0), name="digits")


def _fetch_olivetti(root: Path) -> None:
    import tempfile

    from sklearn.datasets import fetch_olivetti_faces

    # scikit-learn caches what it fetched as a pickle: it goes to a folder that nobody reads again.
    with tempfile.TemporaryDirectory() as scratch:
        faces = fetch_olivetti_faces(data_home=scratch, n_retries=1, delay=0.1)
    (root / "olivetti").mkdir(exist_ok=True)
    # scikit-learn stretches the grey values to 0..1; back on 256 steps they are one byte each.
    pixels = np.rint(faces.images * 255).astype(np.uint8)
    np.savez_compressed(root / "olivetti" / "olivetti_faces.npz", images=pixels, subject=faces.target.astype(np.uint8))


def _olivetti(shelf: DataDirectory, part: Part) -> Records:
    name = "Olivetti faces"
    (file,) = shelf.obtain("olivetti/olivetti_faces.npz", fetch=_fetch_olivetti, name=name)
    arrays = read_npz(file, "images", "subject")
    subject = arrays["subject"].astype(np.int64)
    return Records(
        unit_interval(channels_first(arrays["images"], name)),
        subject,
        40,
        Image(0.0, 1.0),
        name=name,
        owner=subject.copy(),
    )


def _medical_mnist(shelf: DataDirectory, part: Part) -> Records:
    name = "Medical MNIST (subsample)"
    (file,) = shelf.obtain("medical_mnist/medical_mnist_64.npz", fetch=None, name=name)
    arrays = read_npz(file, "X", "y")
    return _records(arrays["X"], arrays["y"], classes=6, name=name)


def _pneumonia(shelf: DataDirectory, part: Part) -> Records:
    name = "PneumoniaMNIST (balanced subset)"
    (file,) = shelf.obtain("pneumoniamnist/pneumoniamnist_balanced.npz", fetch=None, name=name)
    # The validation part belongs to neither side of a train/test comparison, so it is only in the whole.
    parts = ("train", "val", "test") if part == "all" else (part,)
    arrays = read_npz(file, *(f"{one}_{what}" for one in parts for what in ("images", "labels")))
    pixels = _joined([arrays[f"{one}_images"] for one in parts])
    return _records(pixels, _joined([arrays[f"{one}_labels"] for one in parts]), classes=2, name=name)


IMAGE_SETS: dict[str, DataSet] = {
    "digits": DataSet("1,797 handwritten digits, 8 x 8 grey, 10 classes (comes with scikit-learn)", _digits),
    "mnist": DataSet(
        "60,000 + 10,000 handwritten digits, 28 x 28 grey, 10 classes", _idx("MNIST", "MNIST"), parts=True
    ),
    "fashion_mnist": DataSet(
        "60,000 + 10,000 garments, 28 x 28 grey, 10 classes", _idx("FashionMNIST", "Fashion-MNIST"), parts=True
    ),
    "cifar10": DataSet("50,000 + 10,000 small photographs, 32 x 32 colour, 10 classes", _cifar10, parts=True),
    "cifar10_first4000": DataSet(
        "the first 4,000 training images of CIFAR-10 with their exact pixels", _cifar10_first4000
    ),
    "olivetti": DataSet("400 faces of 40 people, 64 x 64 grey, one class and one owner per person", _olivetti),
    "medical_mnist": DataSet("8,973 medical images of 6 kinds, 64 x 64 grey, many near-duplicates", _medical_mnist),
    "pneumoniamnist": DataSet(
        "2,428 + 468 chest X-rays, 28 x 28 grey, normal or pneumonia, balanced", _pneumonia, parts=True
    ),
}
"""Image data sets by name; add one by adding an entry."""
