"""What everybody knows of the records that a target takes."""

from dataclasses import dataclass

from defenses.records import Image, Table


@dataclass(frozen=True)
class RecordSpec:
    """What everybody knows of the records that a target takes.

    Attributes:
        shape: Of one record.
        classes: Number of classes C.
        kind: What a record is, with its public ranges.
    """

    shape: tuple[int, ...]
    classes: int
    kind: Image | Table

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value of a feature; columns of tables are encoded in 0 to 1."""
        return (self.kind.low, self.kind.high) if isinstance(self.kind, Image) else (0.0, 1.0)
