"""Views of an image that an attack asks about, beside the image itself: what training with augmentation has shown.

A model that was trained on mirrored and moved images remembers those too, and each of them is one more measurement.
"""

import numpy as np

from defenses.errors import NotApplicableError
from defenses.records import FloatArray, Image, Records

# (mirrored, rows down, columns right): the image, its mirror image, then both moved by one pixel each way.
VIEWS = tuple((mirrored, *moved) for moved in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)) for mirrored in (False, True))


def check_queries(queries: int) -> None:
    """Raise ValueError unless `queries` is a number of views that there are."""
    if not 1 <= queries <= len(VIEWS):
        raise ValueError(
            f"queries is {queries}; it must lie in 1..{len(VIEWS)}: views of each image that are asked about"
        )


def viewed(records: Records, queries: int) -> list[FloatArray]:
    """Return so many views of records, the records themselves first.

    Args:
        records: n images (n, channels, height, width); anything else has one view only.
        queries: 1 .. 10.

    Returns:
        `queries` arrays like `records.x`; what is moved in from outside is 0.

    Raises:
        NotApplicableError: If more than one view is asked of records that are not images.
    """
    check_queries(queries)
    if queries > 1 and not isinstance(records.kind, Image):
        raise NotApplicableError(f"queries is {queries}, but a row of a table has no views; leave it at 1")
    return [moved(records.x, *view) for view in VIEWS[:queries]]


def moved(x: FloatArray, mirrored: bool, down: int, right: int) -> FloatArray:
    """Return images (n, channels, height, width) mirrored or not, then moved; what comes in from outside is 0."""
    if not (mirrored or down or right):
        return x
    turned = x[..., ::-1] if mirrored else x
    found = np.zeros_like(x)
    height, width = x.shape[-2:]
    found[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = turned[
        ..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return found
