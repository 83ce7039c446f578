"""Records for a plan: from a name or a path relative to it, and two sets joined into one."""

from pathlib import Path

import numpy as np

from auditor.context import RunContext
from auditor.datasets import load, names
from auditor.plan.sections import Source
from defenses.errors import DataError, PlanError
from defenses.records import Records


def load_source(source: Source, context: RunContext, *, like: Records | None = None) -> Records:
    """Load records by name or by a path relative to the plan.

    Args:
        source: Where they come from.
        context: Folder of the plan, and where data sets are looked for.
        like: Records whose encoding is to be used again.

    Raises:
        AuditError: If they cannot be found, read or encoded.
    """
    return read_source(source, context.plan_folder, context.data_dir, like=like, max_memory=context.max_memory)


def read_source(
    source: Source,
    folder: Path,
    data_dir: Path | None,
    *,
    like: Records | None = None,
    max_memory: int | None = None,
) -> Records:
    """Load records by name or by a path relative to a folder.

    Args:
        source: Where they come from.
        folder: What a relative path starts from.
        data_dir: Where data sets are looked for first.
        like: Records whose encoding is to be used again.
        max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

    Raises:
        AuditError: If they cannot be found, read or encoded.
    """
    named = source.source.strip().lower().replace("-", "_") in names()
    where: str | Path = source.source if named else folder / source.source
    try:
        return load(
            where,
            split=source.split,
            label=source.label,
            data_dir=data_dir,
            like=like,
            classes=source.classes,
            ranges=source.ranges,
            categories=source.categories,
            exclude=source.exclude,
            value_range=source.value_range,
            rescale=source.rescale,
            max_memory=max_memory,
        )
    except ValueError as error:
        raise PlanError(f"data: {error}") from error


def joined(members: Records, nonmembers: Records, classes: int) -> Records:
    """Return members and then nonmembers as one set of records.

    Raises:
        DataError: If their shapes differ.
    """
    if members.shape != nonmembers.shape:
        raise DataError(f"members are {members.shape} and nonmembers {nonmembers.shape}; give records of one shape")
    owner = cluster = None
    if members.owner is not None and nonmembers.owner is not None:
        owner = np.concatenate([members.owner, nonmembers.owner])
    if members.cluster is not None and nonmembers.cluster is not None:
        cluster = np.concatenate([members.cluster, nonmembers.cluster])
    return Records(
        np.concatenate([members.x, nonmembers.x]),
        np.concatenate([members.y, nonmembers.y]),
        classes,
        members.kind,
        members.name,
        owner,
        cluster,
    )


def refuse_overlap(outside: Records, *inside: Records) -> None:
    """Refuse a population that shares records with the candidates: it must be outside all training."""
    known = {digest for records in inside for digest in records.row_digests()}
    shared = sum(digest in known for digest in outside.row_digests())
    if shared:
        raise DataError(
            f"{shared} of {len(outside)} population records are also candidates; the population must be records that "
            "neither the target nor a shadow model trains on: leave them out"
        )
