"""The two sides of a checkpoint audit: records that the model was trained on, and records that it was not."""

from auditor.datasets.schema import few
from defenses.errors import DataError
from defenses.records import Records, Table

FEWEST = 10
"""With fewer records on a side no rate can be told from chance."""


def check_records(
    members: Records,
    nonmembers: Records,
    *,
    classes: int | None = None,
    shape: tuple[int, ...] | None = None,
    fewest: int = FEWEST,
) -> None:
    """Check that the two sets of a checkpoint audit can be compared with each other and with the model.

    Args:
        members: Records that the model was trained on.
        nonmembers: Records that it was not trained on.
        classes: Number of outputs of the model; None leaves the labels to `Records`.
        shape: Shape of one record that the architecture takes; None leaves it open.
        fewest: Records that each side needs at least.

    Raises:
        DataError: If a side has too few records, shapes or encodings differ, a label has no output, or a record is in
            both sets.
    """
    for side, records in (("members", members), ("nonmembers", nonmembers)):
        if len(records) < fewest:
            raise DataError(f"{side} ({records.name}) hold {len(records)} records; each side needs at least {fewest}")
        if shape is not None and records.shape != tuple(shape):
            raise DataError(
                f"{side} ({records.name}) have shape {records.shape}, the architecture takes {tuple(shape)}; load the "
                f"records as the model was trained on them, or correct the architecture"
            )
        if classes is not None and int(records.y.max()) >= classes:
            row = int((records.y >= classes).argmax())
            raise DataError(
                f"{side} ({records.name}) have label {int(records.y[row])} in record {row}, but the model has "
                f"{classes} outputs (labels 0..{classes - 1}); correct the labels or the number of classes"
            )
    if members.shape != nonmembers.shape:
        raise DataError(
            f"members ({members.name}) have shape {members.shape}, nonmembers ({nonmembers.name}) {nonmembers.shape}; "
            f"both must be encoded alike, so load the second with like=members"
        )
    if members.kind != nonmembers.kind:
        what = "schemas" if isinstance(members.kind, Table) else "value ranges"
        raise DataError(
            f"members ({members.name}) and nonmembers ({nonmembers.name}) have different {what}; load the second with "
            f"like=members"
        )
    known = set(members.row_digests())
    shared = [row for row, digest in enumerate(nonmembers.row_digests()) if digest in known]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(nonmembers)} nonmembers ({nonmembers.name}) are also members ({members.name}): "
            f"records {few(shared)} of the nonmembers; a record is in one set only, so remove "
            "them"
        )
