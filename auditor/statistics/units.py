"""Records of one owner, or near-duplicates of one another, as one independent unit: the only place that joins them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.statistics.intervals import Float64Array
from defenses.records import BoolArray, IntArray


@dataclass(frozen=True)
class Units:
    """Which unit each record belongs to.

    Attributes:
        place: (n,) index of each record's unit in 0 .. u - 1, in ascending order of the group; None where each record
            is a unit of its own.
    """

    place: IntArray | None

    @classmethod
    def of(cls, groups: npt.ArrayLike | None) -> "Units":
        """Return the units of records.

        Args:
            groups: (n,) integers, equal for records of one unit; None where each record is one.

        Examples:
            >>> Units.of([7, 7, 2]).mean(np.array([0.0, 1.0, 1.0])).tolist()
            [1.0, 0.5]
        """
        return cls(None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1])

    @property
    def name(self) -> str:
        """What a report calls a unit."""
        return "record" if self.place is None else "group of records"

    def mean(self, values: Float64Array) -> Float64Array:
        """Return the mean (u,) over each unit's records (n,)."""
        if self.place is None:
            return values
        return np.asarray(np.bincount(self.place, weights=values) / np.bincount(self.place))

    def highest(self, values: Float64Array) -> Float64Array:
        """Return the largest value (u,) of each unit's records (n,)."""
        if self.place is None:
            return values
        found = np.full(int(self.place.max()) + 1, -np.inf)
        np.maximum.at(found, self.place, values)
        return found

    def any(self, bits: npt.NDArray[np.bool_]) -> BoolArray:
        """Return whether any record of each unit (u,) has its bit (n,) set."""
        if self.place is None:
            return bits
        return np.asarray(np.bincount(self.place, weights=bits.astype(np.float64)) > 0)
