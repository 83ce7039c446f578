"""Arrays in files: `.npz` with x and y, read without pickle; the value range is stated or evident, never guessed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.datasets.pixels import channels_first
from auditor.datasets.reading import Reading, check_class_count
from auditor.datasets.schema import numeric, table
from auditor.files.memory_budget import check_budget
from auditor.files.npz import read_npz
from defenses.errors import DataError
from defenses.records import FloatArray, Image, IntArray, Records, Table

_NAME = 64  # bytes that the name of a class takes


def read_arrays(path: Path, reading: Reading) -> Records:
    """Read an `.npz` file with the arrays x and y, and owner and cluster if it has them.

    Args:
        path: The file.
        reading: classes, value_range, rescale, like.

    Returns:
        Images if x has three or four axes, a table of numeric columns if it has two.

    Raises:
        DataError: If the file cannot be read, or x and y do not say what they are.
        ValueError: If an argument does not fit the file.
    """
    reading.refuse_all_but("classes", "value_range", "rescale", "like", source=str(path))
    arrays = read_npz(path, "x", "y", optional=("owner", "cluster"), max_memory=reading.max_memory)
    x = arrays["x"]
    if x.ndim < 2 or not x.size:
        raise DataError(f"{path}: x has shape {x.shape}; give at least 1 record of at least 1 number")
    y = _whole(arrays["y"], "y", path, count=len(x))
    classes = reading.class_count
    if classes is None:
        if y.min() > 0:
            raise DataError(f"{path}: labels begin at {y.min()}, not at 0; subtract it, or give the number of classes")
        classes = int(y.max()) + 1
        check_class_count(classes, len(y), str(path))
    if y.min() < 0 or y.max() >= classes:
        bad = int(y.min() if y.min() < 0 else y.max())
        raise DataError(f"{path}: label {bad} is outside 0..{classes - 1}; correct it or raise classes")
    features, kind = _features(x, path, reading, classes) if x.ndim == 2 else _images(x, path, reading)
    groups = {key: _whole(arrays[key], key, path, count=len(y)) for key in ("owner", "cluster") if key in arrays}
    records = Records(features, y, classes, kind, name=path.stem, **groups)
    return reading.check_alike(records, str(path))


def _whole(values: npt.NDArray[Any], key: str, path: Path, *, count: int) -> IntArray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != count or not count:
        raise DataError(
            f"{path}: {key} has shape {values.shape} and x {count} records; give one {key} per record, at least 1"
        )
    if values.dtype.kind not in "iub":
        raise DataError(f"{path}: {key} is {values.dtype}; save whole numbers from 0")
    return values.astype(np.int64)


def _images(x: npt.NDArray[Any], path: Path, reading: Reading) -> tuple[FloatArray, Image]:
    low, high = reading.value_range or ((0.0, 255.0) if x.dtype == np.uint8 else _unit(x, path))
    x = channels_first(x, str(path))
    _inside(x, low, high, path)
    if not reading.rescale:
        return np.ascontiguousarray(x, dtype=np.float32), Image(low, high)
    return _scaled(x, low, high), Image(0.0, 1.0)


def _features(x: npt.NDArray[Any], path: Path, reading: Reading, classes: int) -> tuple[FloatArray, Table]:
    stated = reading.value_range
    if reading.rescale:
        low, high = stated or _unit(x, path)
        _inside(x, low, high, path)
        features = _scaled(x, low, high)
    else:
        # Standardised features have no bounds: a column from 0 to 1 without scaling is the identity.
        if stated:
            _inside(x, *stated, path)
        _finite(x, path)
        features, low, high = np.ascontiguousarray(x, dtype=np.float32), 0.0, 1.0
    columns = (numeric(f"x{index}", low, high) for index in range(x.shape[1]))
    check_budget(_NAME * min(classes, 2**40), reading.max_memory, f"{path} with its classes", error=DataError)
    names = reading.class_names or tuple(str(code) for code in range(classes))
    return features, table(*columns, label="y", classes=names, public_domain=stated is not None)


def _scaled(x: npt.NDArray[Any], low: float, high: float) -> FloatArray:
    if (low, high) == (0.0, 1.0):
        return np.ascontiguousarray(x, dtype=np.float32)
    scaled: FloatArray = np.subtract(x, np.float32(low), dtype=np.float32, order="C")
    scaled /= np.float32(high - low)
    # Rounding in float32 may leave the interval by a hair, which a check of the range would then refuse.
    np.clip(scaled, 0.0, 1.0, out=scaled)
    return scaled


def _finite(x: npt.NDArray[Any], path: Path) -> None:
    # Compared with float32's largest number, because that is what the records are kept in; nan compares as False.
    if x.dtype.kind == "f" and not (fits := np.abs(x) <= np.finfo(np.float32).max).all():
        row = int(np.argwhere(~fits)[0][0])
        raise DataError(f"{path}: x holds a value that is not finite in record {row}; impute it or drop the record")


def _unit(x: npt.NDArray[Any], path: Path) -> tuple[float, float]:
    _finite(x, path)
    if x.size and (x.min() < 0 or x.max() > 1):
        raise DataError(
            f"{path}: x is {x.dtype} from {float(x.min()):g} to {float(x.max()):g}, and nothing says what range its "
            "values can have; give value_range=(low, high), and rescale=False if the model was trained on these very "
            "numbers"
        )
    return 0.0, 1.0


def _inside(x: npt.NDArray[Any], low: float, high: float, path: Path) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"value_range is ({low}, {high}); give two finite numbers, the smaller first")
    _finite(x, path)
    if x.size and (x.min() < low or x.max() > high):
        raise DataError(
            f"{path}: x reaches from {float(x.min()):g} to {float(x.max()):g}, outside the range ({low:g}, {high:g}); "
            "correct value_range"
        )
