"""What values a canary's features may have: the public range where there is one."""

import numpy as np

from defenses.records import FloatArray, Records, Table


def feature_range(records: Records) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest value of every feature, each in the shape of one record.

    An image has the range of its kind. A column of a table is scaled to [0, 1]; where the data was read as it is
    (`rescale=False`) and leaves that interval, the column's smallest and largest values stand in.

    Examples:
        >>> low, high = feature_range(load("digits"))   # doctest: +SKIP
        >>> float(low.max()), float(high.min())         # doctest: +SKIP
        (0.0, 1.0)
    """
    if not isinstance(records.kind, Table):
        ends = records.kind.low, records.kind.high
        return np.full(records.shape, ends[0], np.float32), np.full(records.shape, ends[1], np.float32)
    low, high = records.x.min(axis=0), records.x.max(axis=0)
    scaled = (low >= 0) & (high <= 1)
    return np.where(scaled, np.float32(0), low), np.where(scaled, np.float32(1), high)
