"""The candidates of an audit of planted data: all canaries and their coins, from the sealed file."""

import os
from pathlib import Path

import numpy as np

from auditor.canaries.data_format import read_back
from auditor.canaries.sealed_coins import SealedCoins, data_digest
from auditor.canaries.staging import PUBLIC
from auditor.context import RunContext
from auditor.datasets.member_nonmember_checks import FEWEST
from auditor.datasets.sources import load_source, refuse_overlap
from auditor.plan.sections import Source
from auditor.targets.labelled_candidates import LabelledCandidates
from defenses.errors import DataError
from defenses.records import Inclusion, Records
from reports.parsing import read_json
from reports.untrusted import printable, quoted


def planted_candidates(
    canaries: str,
    context: RunContext,
    *,
    data: str | None = None,
    commitment: str | None = None,
    population: Source | None = None,
) -> LabelledCandidates:
    """Open a sealed file for an audit, and check it against the planted data and the commitment if they are given.

    Args:
        canaries: Path of the sealed file, relative to the plan.
        context: Where and with what.
        data: Path of the planted data, or None where it is not at hand.
        commitment: The published commitment (64 hexadecimal digits), or None.
        population: Records outside all training, or None.

    Returns:
        All m canaries with the coins; beside them the planted data without canaries, if it is given.

    Raises:
        AuditError: If the file cannot be trusted, or belongs to other data.
    """
    sealed = SealedCoins.read(context.plan_folder / canaries, max_memory=context.max_memory)
    if commitment not in (None, sealed.commitment):
        raise DataError(
            f"{canaries} opens to the commitment {sealed.commitment}, and the plan holds {commitment}: it "
            "is another planting, or was made anew after the coins were known; use the file that was committed to"
        )
    inside = int(sealed.included.sum())
    if min(inside, len(sealed.included) - inside) < FEWEST:
        raise DataError(
            f"{canaries}: {inside} of {len(sealed.included)} canaries were planted; an audit needs at least "
            f"{FEWEST} that were and as many that were not, so plant more canaries"
        )
    beside = None if data is None else _beside(sealed, context.plan_folder / data)
    outside = None if population is None else load_source(population, context, like=sealed.candidates)
    if outside is not None:
        refuse_overlap(outside, sealed.candidates, *([] if beside is None else [beside]))
    about = {"kind": sealed.kind, "count": len(sealed.included), "data_digest": sealed.data_digest}
    return LabelledCandidates(
        candidates=sealed.candidates,
        included=sealed.included,
        inclusion=Inclusion.INDEPENDENT,
        probability=0.5,
        population=outside,
        beside=beside,
        commitment=f"of the canaries' coins: {sealed.commitment}",
        remarks={"canaries": about},
    )


def _beside(sealed: SealedCoins, path: Path) -> Records:
    """Return the planted data without canaries, after making sure that it is what was planted."""
    # Whatever stands under that name is looked at: what is no file there, `_agree` refuses.
    folder = path if os.path.lexists(path / PUBLIC) else path.parent
    if os.path.lexists(folder / PUBLIC):
        _agree(sealed, folder / PUBLIC)
    if folder == path:
        path = path / sealed.data
    try:
        found = read_back(path, sealed.reading, like=sealed.candidates)
    except ValueError as error:
        raise DataError(f"the planted data cannot be read as the sealed file says: {error}") from error
    if data_digest(found) != sealed.data_digest:
        raise DataError(
            f"{path} is not the data that these canaries were planted in, or was changed since; name the planted data, "
            "or the sealed file that belongs to it"
        )
    # By likeness, not by coin: what remains is the same whatever the coins were.
    canaries = set(sealed.candidates.row_digests())
    return found.take(np.array([digest not in canaries for digest in found.row_digests()], dtype=np.bool_))


def _agree(sealed: SealedCoins, path: Path) -> None:
    found, shown = read_json(path, error=DataError), printable(str(path))
    said = found.get("commitment") if isinstance(found, dict) else None
    if not isinstance(said, str):
        raise DataError(f"{shown} is damaged, because it holds no commitment; restore it, or leave it out")
    if said != sealed.commitment:
        raise DataError(
            f"{shown} holds the commitment {quoted(said)}, and the sealed file opens to {sealed.commitment}: it is "
            "the sealed file of other data, or was made anew; use the one that belongs to this data"
        )
