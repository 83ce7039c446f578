"""Records and the split that says who was in: the data every other package works on."""

import enum
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Image:
    """Records are images (n, channels, height, width) with values in a public range."""

    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Column:
    """One column of the table that the records were encoded from.

    Attributes:
        name: Name in the source.
        categories: Values of a categorical column in the order of its one-hot block; empty for a numeric column.
        low: Value that a numeric column encodes as 0 (the source's units).
        high: Value that a numeric column encodes as 1.
        start: First encoded feature of this column in `Records.x`.
        width: Number of encoded features (1 if numeric).
    """

    name: str
    categories: tuple[str, ...]
    low: float
    high: float
    start: int
    width: int


@dataclass(frozen=True)
class Table:
    """Records are encoded rows (n, features) of a table.

    Attributes:
        columns: The columns in the order of the source, the label left out.
        label: Name of the label column.
        classes: Label values in the order of the integer codes in `Records.y`.
        public_domain: Whether ranges and categories come from a public description; if False they were read from the
            data, and every guarantee carries that as an assumption.
    """

    columns: tuple[Column, ...]
    label: str
    classes: tuple[str, ...]
    public_domain: bool = True


@dataclass(frozen=True)
class Records:
    """Labelled records.

    Attributes:
        x: (n, *shape) float32, finite.
        y: (n,) int64 labels in 0 .. classes - 1.
        classes: Number of classes C; public.
        kind: What a record is: `Image` or `Table`.
        name: What the data set is called in reports.
        owner: (n,) int64 or None: whose record it is, where one person has several.
        cluster: (n,) int64 or None: records of one cluster are near-duplicates and count as one unit.

    Raises:
        ValueError: If shapes differ, a label is out of range, or a feature is not finite.
    """

    x: FloatArray
    y: IntArray
    classes: int
    kind: Image | Table
    name: str = "records"
    owner: IntArray | None = None
    cluster: IntArray | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{self.name}: x holds {len(self.x)} records, y {len(self.y)} labels; give one label each")
        if self.x.dtype != np.float32 or self.y.dtype != np.int64:
            raise ValueError(f"{self.name}: x is {self.x.dtype} and y {self.y.dtype}; convert to float32 and int64")
        if len(self.y) and (self.y.min() < 0 or self.y.max() >= self.classes):
            bad = int(self.y.min()) if self.y.min() < 0 else int(self.y.max())
            raise ValueError(
                f"{self.name}: label {bad} is outside 0..{self.classes - 1}; correct it or raise `classes`"
            )
        if not np.isfinite(self.x).all():
            row = int(np.flatnonzero(~np.isfinite(self.x.reshape(len(self.x), -1)).all(axis=1))[0])
            raise ValueError(f"{self.name}: record {row} has a value that is not finite; impute or drop it")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record, without the record axis."""
        return self.x.shape[1:]

    def take(self, indices: npt.NDArray[Any]) -> "Records":
        """Return the records at `indices` (integers, or a boolean mask), in that order."""
        return replace(
            self,
            x=self.x[indices],
            y=self.y[indices],
            owner=None if self.owner is None else self.owner[indices],
            cluster=None if self.cluster is None else self.cluster[indices],
        )

    @property
    def units(self) -> IntArray | None:
        """Whose presence is one question (n,): the owner, else the duplicate cluster, else None: each record its own.

        Records of one unit are in or out together, and count once.
        """
        return self.owner if self.owner is not None else self.cluster

    def coins(self, rng: np.random.Generator, probability: float) -> BoolArray:
        """Draw who is in, (n,) bool: each unit by its own coin of this probability."""
        if self.units is None:
            return rng.random(len(self)) < probability
        _, place = np.unique(self.units, return_inverse=True)
        drawn: BoolArray = rng.random(place.max() + 1) < probability
        return drawn[place]

    def swaps(self, rng: np.random.Generator) -> tuple[BoolArray, IntArray]:
        """Draw who is in so that the number of units is fixed: units are paired at random, and one of each pair is in.

        Which of a pair is in says its own fair coin: the other choice replaces one unit by another. An odd one is out.

        Returns:
            Who is in, (n,) bool, and the pair of each record, (n,) int64, -1 for those that are in none.
        """
        if self.units is None:
            place = np.arange(len(self))
        else:
            _, place = np.unique(self.units, return_inverse=True)
        count = int(place.max()) + 1 if len(place) else 0
        order = rng.permutation(count)[: count // 2 * 2].reshape(-1, 2)
        pair = np.full(count, -1, dtype=np.int64)
        pair[order] = np.arange(len(order))[:, None]
        first = rng.random(len(order)) < 0.5
        lower = np.sort(order, axis=1)
        included = np.zeros(count, dtype=np.bool_)
        included[np.where(first, lower[:, 0], lower[:, 1])] = True
        return included[place], pair[place]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over features, labels and shape; two sets are the same data exactly if it agrees."""
        digest = hashlib.sha256(repr((self.x.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.x).tobytes())
        digest.update(np.ascontiguousarray(self.y).tobytes())
        return digest.hexdigest()

    def row_digests(self) -> list[bytes]:
        """Return one 16-byte digest per record, over features and label; equal records have equal digests."""
        return [
            hashlib.blake2b(
                np.ascontiguousarray(row).tobytes() + int(label).to_bytes(8, "big"), digest_size=16
            ).digest()
            for row, label in zip(self.x, self.y, strict=True)
        ]


class Inclusion(enum.Enum):
    """How it was decided which candidates the target trained on; a bound refuses a design it was not made for."""

    INDEPENDENT = "each candidate by its own fair coin, before training"
    SWAPPED = "one of each pair of candidates by a fair coin, before training"
    FIXED = "fixed by somebody else, not drawn at random"
    PAIRED_RUNS = "independent runs that differ in one record"


@dataclass(frozen=True)
class Split:
    """Who was in: the truth of an audit, which no attacker's view ever holds.

    Attributes:
        included: (m,) bool: whether the target trained on each candidate.
        inclusion: How `included` came about.
        probability: Chance with which each candidate was included (public); for FIXED, the share that was.
        pair: (m,) int64 for SWAPPED: which pair a candidate belongs to, -1 for none; else None.
    """

    included: BoolArray
    inclusion: Inclusion
    probability: float = 0.5
    pair: IntArray | None = None

    def __post_init__(self) -> None:
        if (self.pair is not None) is not (self.inclusion is Inclusion.SWAPPED):
            raise ValueError(f"inclusion is {self.inclusion.name}; pairs are given exactly if it is SWAPPED")
