"""Data: a name or a path becomes `Records`.

A data set known by name has a fixed public encoding and is searched for in a data directory before anything is
downloaded; a file of one's own is encoded by what the caller says of it. Adding a named set is one entry in
`IMAGE_SETS` or `TABLE_SETS`.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from auditor.datasets.array_files import read_arrays
from auditor.datasets.data_directory import DATA_VARIABLE, DataDirectory, DataSet, Part
from auditor.datasets.image_folders import read_folder
from auditor.datasets.image_sets import IMAGE_SETS
from auditor.datasets.member_nonmember_checks import check_records
from auditor.datasets.reading import Reading
from auditor.datasets.schema import decode, encode, few
from auditor.datasets.table_files import TABLE_ENDINGS, read_table
from auditor.datasets.table_sets import TABLE_SETS
from auditor.files.memory_budget import default_budget
from defenses.errors import AuditError, DataError
from defenses.records import Records
from reports.suggestions import nearest
from reports.untrusted import guarded

__all__ = ["DATA_SETS", "DATA_VARIABLE", "DataSet", "Part", "check_records", "decode", "encode", "load", "names"]

DATA_SETS: dict[str, DataSet] = IMAGE_SETS | TABLE_SETS
"""Every data set known by name."""


def names() -> dict[str, str]:
    """Return the data sets known by name, each with a description of one line.

    Examples:
        >>> names()["digits"]
        '1,797 handwritten digits, 8 x 8 grey, 10 classes (comes with scikit-learn)'
    """
    return {name: entry.summary for name, entry in DATA_SETS.items()}


def load(
    source: str | Path,
    *,
    split: Part = "train",
    label: str | None = None,
    data_dir: Path | None = None,
    download: bool = True,
    like: Records | None = None,
    classes: int | Sequence[str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    exclude: Collection[str] = (),
    value_range: tuple[float, float] | None = None,
    rescale: bool = True,
    max_memory: int | None = None,
) -> Records:
    """Load records by name, or from a file or folder.

    By name, the data directory is searched first (torchvision's layout, packed files too), then the user's cache; only
    then is the set downloaded, where a library offers that. A path is a `.npz` file (arrays x and y; owner and cluster
    if there), a `.csv`, `.csv.gz` or `.parquet` table, or a folder with one sub-folder of images per class. No such
    file is ever unpickled.

    Args:
        source: A name from `names()`, or a path. A `Path` is always a path; so is text with a "/" in it.
        split: Which published part: "train", "test" or "all". A set without published parts, or a file, is one pool:
            "train" and "all" are the whole, "test" is an error.
        label: Tables: name of the label column (required unless `like` is given).
        data_dir: Folder to search first; None takes the environment variable AUDITOR_DATA, if it is set.
        download: Whether the network may be used.
        like: Records whose encoding is used, so that members and non-members share one schema. A category or class that
            it does not have is an error; numbers outside its ranges are clipped. A named set must already be alike.
        classes: Arrays: number of classes. Tables: label values in the order of their codes. Image folders: sub-folder
            names in the order of their codes.
        ranges: Tables: public (low, high) of numeric columns, in the source's units; columns without one take smallest
            and largest value from the data, and the schema then has `public_domain=False`.
        categories: Tables: public values of categorical columns; an empty list makes a column of numbers categorical.
        exclude: Tables: columns to leave out (identifiers, free text).
        value_range: Arrays: (low, high) that values can have. Bytes of images are 0 to 255; other numbers must lie in
            [0, 1] unless this is given.
        rescale: Arrays: False keeps the numbers as they are, for a model that was trained on exactly these.
        max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

    Returns:
        Images as float32 (n, channels, height, width) in [0, 1]; tables as float32 (n, features) in [0, 1] with the
        schema.

    Raises:
        DataError: If the data is not there, is damaged, or cannot be encoded; one sentence names the remedy.
        ValueError: If the name is unknown, or an argument does not apply to this source.

    Examples:
        >>> records = load("digits")
        >>> records.x.shape, records.classes
        ((1797, 1, 8, 8), 10)
    """
    budget = default_budget() if max_memory is None else max_memory
    reading = Reading(label, classes, ranges or {}, categories or {}, exclude, value_range, rescale, like, budget)
    return _find(source, split, reading, data_dir=data_dir, download=download)


def _find(source: str | Path, split: Part, reading: Reading, *, data_dir: Path | None, download: bool) -> Records:
    """Read what a name or a path stands for."""
    if split not in ("train", "test", "all"):
        raise ValueError(f"split is {split!r}; choose 'train', 'test' or 'all'")
    if reading.like is not None and not len(reading.like):
        raise ValueError(f"like: {reading.like.name} holds no records; give the records that set the encoding")
    name = source.strip().lower().replace("-", "_") if isinstance(source, str) else ""
    if name in DATA_SETS:
        return _read_named(name, reading, split, DataDirectory.at(data_dir, download=download))
    path = Path(source).expanduser()
    if not path.exists():
        if isinstance(source, Path) or "/" in source or path.suffix:
            raise DataError(f"there is no file or folder {path}; correct the path, or name one of {few(DATA_SETS, 99)}")
        raise ValueError(
            f"unknown data set {source!r}{nearest(name, DATA_SETS, listed=False)}; known: {few(DATA_SETS, 99)}, or "
            "give a path"
        )
    if split == "test":
        raise ValueError(f"split is 'test', but {path} has no parts; give the path of the part that you mean")
    return _read_path(path, reading)


def _read_named(name: str, reading: Reading, split: Part, shelf: DataDirectory) -> Records:
    """Return a set that is known by name, in its fixed encoding."""
    entry = DATA_SETS[name]
    reading.refuse_all_but("like", source=f"{name}, a set with a fixed encoding")
    if split == "test" and not entry.parts:
        raise ValueError(
            f"split is 'test', but {name} was published as one pool; load 'all' and draw the split from it"
        )
    with guarded(name, error=DataError, remedy="delete its files and get them again", keep=AuditError):
        records = entry.read(shelf, split)
    return reading.check_alike(records, name)


def _read_path(path: Path, reading: Reading) -> Records:
    if path.is_dir():
        return read_folder(path, reading)
    lower = path.name.lower()
    if lower.endswith(".npz"):
        return read_arrays(path, reading)
    if lower.endswith(TABLE_ENDINGS):
        return read_table(path, reading)
    raise DataError(
        f"{path} is of no known kind; give .npz, {', '.join(TABLE_ENDINGS)}, or a folder of images by class"
    )
