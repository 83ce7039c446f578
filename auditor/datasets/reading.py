"""What a caller says about a file of their own, because the file does not say it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields

from auditor.files.memory_budget import default_budget
from defenses.errors import DataError
from defenses.records import Records
from reports.untrusted import printable

MOST_CLASSES = 1000
"""Classes that labels may count up to without being stated, or as many as there are records if those are more."""


def check_class_count(classes: int, records: int, source: str) -> None:
    """Refuse labels that imply far more classes than records: each class costs an output of every model.

    Args:
        classes: Largest label and one.
        records: Number of records.
        source: What holds them.

    Raises:
        DataError: If there are more than `MOST_CLASSES` and more than records.
    """
    if classes > max(MOST_CLASSES, records):
        raise DataError(
            f"{printable(source)}: labels reach {classes - 1:,} among {records:,} records, and more than "
            f"{max(MOST_CLASSES, records):,} classes are not inferred; number the classes from 0 without gaps, or "
            "give the number of classes"
        )


@dataclass(frozen=True)
class Reading:
    """What a file does not say of itself; the fields are described at `auditor.datasets.load`."""

    label: str | None = None
    classes: int | Sequence[str] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exclude: Collection[str] = ()
    value_range: tuple[float, float] | None = None
    rescale: bool = True
    like: Records | None = None
    max_memory: int = field(default_factory=default_budget)

    def refuse_all_but(self, *accepted: str, source: str) -> None:
        """Raise ValueError if an argument is given that this kind of source has no use for."""
        unused = Reading()
        for name in (one.name for one in fields(self) if one.name != "max_memory"):
            given, default = getattr(self, name), getattr(unused, name)
            # An empty list or table is as good as none: a plan may spell it out.
            empty = isinstance(given, (Mapping, Collection)) and not isinstance(given, Records) and not given
            if name not in accepted and not empty and given != default:
                allowed = f"only {', '.join(accepted)}" if accepted else "no such arguments"
                raise ValueError(f"{name} does not apply to {source}, which takes {allowed}; leave it out")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of their codes, if they were given as names."""
        return None if self.classes is None or isinstance(self.classes, int) else tuple(self.classes)

    @property
    def class_count(self) -> int | None:
        """Number of classes, if it was given in any form."""
        if self.classes is None:
            return self.like.classes if self.like is not None else None
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def check_alike(self, records: Records, source: str) -> Records:
        """Return the records if they have the shape and encoding of `like`, where it is given.

        Raises:
            DataError: If shape or kind differ.
        """
        if self.like is None:
            return records
        if records.shape != self.like.shape:
            raise DataError(
                f"{source} holds records of shape {records.shape}, {self.like.name} of {self.like.shape}; they must "
                "agree"
            )
        if records.kind != self.like.kind:
            raise DataError(
                f"{source} and {self.like.name} do not have the same range and classes; load both with the same "
                "arguments"
            )
        return records
