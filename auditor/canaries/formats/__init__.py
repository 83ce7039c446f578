"""Forms that data comes in and goes back out in, one file each; `form_of` finds the one of a source."""

from pathlib import Path

from auditor.canaries.data_format import DataFormat
from auditor.canaries.formats.array_file import ArrayFile
from auditor.canaries.formats.image_folder import ImageFolder
from auditor.canaries.formats.table_file import TableFile
from auditor.datasets import names
from auditor.plan.sections import Source
from defenses.records import Image, Records

__all__ = ["DataFormat", "form_of"]


def form_of(source: Source, records: Records, folder: Path) -> DataFormat:
    """Return the form that a data set came in.

    A set known by name has no file of its own here: images become `.npz`, a table `.csv`.

    Args:
        source: Where the records come from.
        records: What was loaded from there.
        folder: Folder that a relative path starts from.
    """
    name = source.source.strip().lower().replace("-", "_")
    if name in names():
        return ArrayFile.of(records, name) if isinstance(records.kind, Image) else TableFile.of(records, name)
    path = (folder / source.source).expanduser()
    if path.is_dir():
        return ImageFolder(path, records)
    if path.name.lower().endswith(".npz"):
        return ArrayFile.at(path, records, source)
    return TableFile.at(path, records)
