"""Arrays: `.npz` in, `.npz` out, in the same type, layout and range."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.canaries.canary_type import Drawn
from auditor.canaries.data_format import DataFormat
from auditor.datasets.pixels import CHANNELS, unit_interval
from auditor.files.npz import read_npz
from auditor.plan.sections import Source
from defenses.records import FloatArray, Image, IntArray, Records

GROUPS = ("owner", "cluster")


class ArrayFile(DataFormat):
    """An `.npz` file with x and y, and owner and cluster if it has them; other arrays are left out.

    Args:
        name: Name of the file.
        records: The data set as it was loaded.
        reading: What `read_back` must be told.
        arrays: What the file holds.
        limits: (low, high) that 0 and 1 stand for, or None where the numbers are taken as they are.
    """

    def __init__(
        self,
        name: str,
        records: Records,
        reading: Mapping[str, Any],
        *,
        arrays: Mapping[str, npt.NDArray[Any]],
        limits: tuple[float, float] | None,
    ) -> None:
        super().__init__(name, records, reading)
        self._arrays, self._limits = arrays, limits

    @classmethod
    def at(cls, path: Path, records: Records, source: Source) -> "ArrayFile":
        """Take over the file that the records were read from."""
        arrays = read_npz(path, "x", "y", optional=GROUPS)
        bytes_of_images = arrays["x"].dtype == np.uint8 and isinstance(records.kind, Image)
        limits = source.value_range or ((0.0, 255.0) if bytes_of_images else (0.0, 1.0))
        said = source.model_dump(mode="json", include={"classes", "value_range", "rescale"}, exclude_defaults=True)
        return cls(path.name, records, said, arrays=arrays, limits=limits if source.rescale else None)

    @classmethod
    def of(cls, records: Records, name: str) -> "ArrayFile":
        """Make a file of images that have none; those that came from bytes are bytes again."""
        x: npt.NDArray[Any] = records.x
        limits = (0.0, 1.0)
        pixels = np.rint(np.clip(x, 0, 1) * np.float32(255)).astype(np.uint8)
        if np.array_equal(unit_interval(pixels), x):
            x, limits = pixels, (0.0, 255.0)
        arrays = {"x": x, "y": records.y}
        arrays |= {key: value for key in GROUPS if (value := getattr(records, key)) is not None}
        return cls(f"{name}.npz", records, {}, arrays=arrays, limits=limits)

    def write(self, path: Path, kept: IntArray, added: Drawn, order: IntArray) -> None:
        """Write x and y in their own types; see `DataFormat.write`. A canary is an owner and a cluster of its own."""
        x, y = self._arrays["x"], self._arrays["y"].reshape(-1)
        new = x[added.base] if added.base is not None else self._raw(added.x)
        found = {
            "x": np.concatenate([x[kept], new])[order],
            "y": np.concatenate([y[kept], added.y.astype(y.dtype)])[order],
        }
        for key in GROUPS:
            if key in self._arrays:
                group = self._arrays[key].reshape(-1).astype(np.int64)
                found[key] = np.concatenate([group[kept], group.max() + 1 + np.arange(len(added))])[order]
        with path.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]  # typed as if a name might be allow_pickle

    def _raw(self, x: FloatArray) -> npt.NDArray[Any]:
        """Return features in the numbers, type and layout of the file."""
        like = self._arrays["x"]
        raw = x.astype(np.float64)
        if self._limits is not None:
            low, high = self._limits
            raw = np.clip(low + raw * (high - low), low, high)
        if like.dtype.kind != "f":
            raw = np.rint(raw)
        if like.ndim == 4 and like.shape[3] in CHANNELS and like.shape[1] not in CHANNELS:
            raw = np.moveaxis(raw, 1, 3)
        return raw.astype(like.dtype).reshape(len(x), *like.shape[1:])
