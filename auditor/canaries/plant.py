"""Plant canaries into a data set: candidates, fair coins, the planted data, and the sealed file that holds the truth.

The coins come from the operating system's entropy and go nowhere but into the sealed file. The training reads the
planted data alone; where a row stands in it says nothing, because records and canaries are shuffled together.
"""

import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auditor.canaries.form import Form, read_back
from auditor.canaries.forms import form_of
from auditor.canaries.kind import Drawn, Kind
from auditor.canaries.sealed import Sealed, data_digest, reserve
from auditor.plan_parts import Source
from auditor.sources import read_source
from defenses.errors import DataError, PlanError
from defenses.progress import OnProgress, silent
from defenses.randomness import stream
from defenses.records import IntArray, Records

FEWEST = 50
"""With fewer canaries the coins may well leave a side of the audit with fewer than the ten that it needs."""

PUBLIC = "planted.json"
"""What is said in public beside the planted data."""


@dataclass(frozen=True)
class Planted:
    """What came of a planting, all of it public.

    Attributes:
        data: Path of the planted data.
        commitment: Salted SHA-256 that binds to coins and candidates.
        digest: `data_digest` of the planted data.
        removed: Records that left the data because candidates were made of them.
    """

    data: Path
    commitment: str
    digest: str
    removed: int


def plant(
    source: Source,
    *,
    kind: Kind,
    canaries: int,
    out: Path,
    secret: Path,
    folder: Path = Path(),
    data_dir: Path | None = None,
    on_progress: OnProgress = silent,
) -> Planted:
    """Plant canaries into a data set.

    Args:
        source: The data: a name, or a path with what must be known to read it.
        kind: What the canaries are.
        canaries: m, candidates to make; each is planted by its own fair coin. At least 50.
        out: Folder for the planted data; must not be there, or be empty.
        secret: The sealed file; must not be there, nor lie in the data's or the planted data's folder.
        folder: Folder that a relative source starts from.
        data_dir: Where data sets are looked for first.
        on_progress: Called while a reference model is trained, for kinds that want one.

    Returns:
        What may be said in public; it is also written to `planted.json` in `out`.

    Raises:
        AuditError: If the data cannot be read, or the arguments do not fit; nothing is left behind then.

    Example:
        >>> planted = plant(Source(source="digits"), kind=Mislabelled(), canaries=500,
        ...                 out=Path("planted"), secret=Path("coins.sealed"))         # doctest: +SKIP
        >>> planted.data                                                              # doctest: +SKIP
        PosixPath('planted/digits.npz')

    Source: the design of Steinke, Nasr and Jagielski (2023): m examples, each in by its own fair coin, the rest fixed.
    """
    if canaries < FEWEST:
        raise PlanError(f"{canaries} canaries; give at least {FEWEST}, since an audit needs some in and some left out")
    records = read_source(source, folder, data_dir)
    original = (folder / source.source).expanduser()
    _refuse_inside(secret, out, original if original.is_dir() else None)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PlanError(f"{out} is not empty; give a folder of its own for the planted data")
    form = form_of(source, records, folder)
    made = not out.exists()
    with reserve(secret) as file:
        try:
            with tempfile.TemporaryDirectory(prefix="canaries-") as scratch:
                drawn = _distinct(kind, records, canaries, form, Path(scratch), on_progress)
            included = np.frombuffer(secrets.token_bytes(canaries), np.uint8) % 2 == 1
            out.mkdir(parents=True, exist_ok=True)
            planted = _write(form, drawn, drawn.take(np.flatnonzero(included)), out / form.name)
            sealed = Sealed(
                candidates=replace(_records(drawn, records), name=f"{kind.name} canaries planted in {records.name}"),
                included=included,
                kind=kind.name,
                data=form.name,
                data_digest=data_digest(planted),
                reading=form.reading,
                salt=secrets.token_hex(32),
            )
            sealed.write(file)
            public = {
                "data": form.name,
                "data_digest": sealed.data_digest,
                "canaries": canaries,
                "kind": kind.name,
                "commitment": sealed.commitment,
            }
            (out / PUBLIC).write_text(json.dumps(public, indent=2) + "\n")
        except BaseException:
            secret.unlink()
            if out.is_dir():
                _clear(out, itself=made)
            raise
    removed = 0 if drawn.base is None else len(drawn)
    return Planted(out / form.name, sealed.commitment, sealed.data_digest, removed)


def _refuse_inside(secret: Path, *folders: Path | None) -> None:
    for folder in folders:
        if folder is not None and secret.resolve().is_relative_to(folder.resolve()):
            raise PlanError(
                f"the sealed file {secret} would lie in the data's folder {folder}, where the training can "
                "read it; put it somewhere else"
            )


def _distinct(kind: Kind, records: Records, count: int, form: Form, scratch: Path, on_progress: OnProgress) -> Drawn:
    """Return candidates that differ from one another and from every record that stays."""
    # A coin about a record that is there anyway, or there twice, would decide nothing.
    rows: dict[bytes, int] = {}
    digests = records.row_digests()
    for digest in digests:
        rows[digest] = rows.get(digest, 0) + 1
    rng = stream(secrets.randbits(128), "canaries")
    wanted, found = count, 0
    while wanted <= 16 * count:
        drawn = form.settle(kind.draw(records, wanted, rng=rng, on_progress=on_progress), scratch)
        if drawn.base is not None and 2 * count > len(records):
            raise PlanError(
                f"{count} canaries of kind {kind.name!r} take as many records out of {records.name}, which has "
                f"{len(records)}; ask for at most half of them, or choose a kind that is made from nothing"
            )
        seen: set[bytes] = set()
        fresh = []
        for place, digest in enumerate(_records(drawn, records).row_digests()):
            there = rows.get(digest, 0)
            if there and drawn.base is not None and digests[drawn.base[place]] == digest:
                there -= 1  # it leaves
            if not there and digest not in seen:
                fresh.append(place)
                seen.add(digest)
        found = len(fresh)
        if found >= count:
            return drawn.take(np.array(fresh[:count]))
        if len(drawn) < wanted:
            break
        wanted *= 2
    raise PlanError(
        f"only {found} canaries of kind {kind.name!r} differ from one another and from the records of {records.name}, "
        f"and {count} were asked for; ask for fewer, or choose another kind"
    )


def _write(form: Form, drawn: Drawn, added: Drawn, path: Path) -> Records:
    """Write the planted data and read it back; what does not read back as it was meant is refused."""
    records = form.records
    kept = np.arange(len(records))
    if drawn.base is not None:
        kept = np.delete(kept, drawn.base)
    order = stream(secrets.randbits(128), "order").permutation(len(kept) + len(added))
    form.write(path, kept, added, order)
    back = read_back(path, form.reading, like=records)
    meant = sorted(records.take(kept).row_digests() + _records(added, records).row_digests())
    if sorted(back.row_digests()) != meant:
        raise DataError(
            f"{form.name} does not read back as it was written, so its numbers are not kept exactly; save the data as "
            ".npz and plant into that"
        )
    return back


def _records(drawn: Drawn, like: Records) -> Records:
    """Return candidates as records, each a group of its own where the data has groups."""
    alone: IntArray = np.arange(len(drawn))
    return Records(
        drawn.x,
        drawn.y,
        like.classes,
        like.kind,
        like.name,
        owner=None if like.owner is None else like.owner.max() + 1 + alone,
        cluster=None if like.cluster is None else like.cluster.max() + 1 + alone,
    )


def _clear(folder: Path, *, itself: bool) -> None:
    """Remove what was written into a folder that was empty or not there."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if itself:
        folder.rmdir()
