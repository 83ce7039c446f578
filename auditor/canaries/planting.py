"""Plant canaries into a data set: candidates, fair coins, the planted data, and the sealed file that holds the truth.

The coins come from the operating system's entropy and go nowhere but into the sealed file. The training reads the
planted data alone; where a row stands in it says nothing, because records and canaries are shuffled together.
"""

import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auditor.canaries.canary_type import CanaryType, Drawn
from auditor.canaries.data_format import DataFormat, read_back
from auditor.canaries.formats import form_of
from auditor.canaries.sealed_coins import SealedCoins, data_digest
from auditor.canaries.staging import PUBLIC, Staging, publish, refuse_taken, staged, undo_unfinished
from auditor.datasets.sources import read_source
from auditor.plan.sections import Source
from defenses.errors import DataError, PlanError
from defenses.progress import OnProgress, silent
from defenses.randomness import stream
from defenses.records import IntArray, Records

FEWEST = 50
"""With fewer canaries the coins may well leave a side of the audit with fewer than the ten that it needs."""


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
    kind: CanaryType,
    canaries: int,
    out: Path,
    secret: Path,
    folder: Path = Path(),
    data_dir: Path | None = None,
    on_progress: OnProgress = silent,
) -> Planted:
    """Plant canaries into a data set.

    The sealed file and then the folder appear whole, or not at all. What a killed planting leaves, the next call with
    the same goals clears up; see `auditor.canaries.staging`.

    Args:
        source: The data: a name, or a path with what must be known to read it.
        kind: What the canaries are.
        canaries: m, candidates to make; each is planted by its own fair coin. At least 50.
        out: Folder for the planted data (mode 0700); must not be there, or be empty.
        secret: The sealed file (mode 0600); must not be there, nor lie in the data's or the planted data's folder.
        folder: Folder that a relative source starts from.
        data_dir: Where data sets are looked for first.
        on_progress: Called while a reference model is trained, for kinds that want one.

    Returns:
        What may be said in public; it is also written to `planted.json` in `out`.

    Raises:
        AuditError: If the data cannot be read, or the arguments do not fit; nothing is left behind then.

    Examples:
        >>> planted = plant(Source(source="digits"), kind=Mislabelled(), canaries=500,
        ...                 out=Path("planted"), secret=Path("coins.sealed"))         # doctest: +SKIP
        >>> planted.data                                                              # doctest: +SKIP
        PosixPath('planted/digits.npz')

    Source: the design of Steinke, Nasr and Jagielski (2023): m examples, each in by its own fair coin, the rest fixed.
    """
    if canaries < FEWEST:
        raise PlanError(f"{canaries} canaries; give at least {FEWEST}, since an audit needs some in and some left out")
    original = (folder / source.source).expanduser()
    _refuse_inside(secret, out, original if original.is_dir() else None)
    _refuse_in_use(out)
    # A link in place of the sealed file is not followed: it would be something that is there.
    with staged(_real(out)) as data, staged(_real(secret.parent) / secret.name) as sealed:
        undo_unfinished(data, sealed)
        try:
            refuse_taken(out, secret)
            data.empty()
            sealed.empty()
            form = form_of(source, read_source(source, folder, data_dir), folder)
            drawn = _drawn(kind, canaries, form=form, staging=sealed, on_progress=on_progress)
            truth = _make(kind, drawn, form=form, data=data, sealed=sealed)
            publish(data, sealed)
        finally:
            data.empty()
            sealed.empty()
    return Planted(out / form.name, truth.commitment, truth.data_digest, 0 if drawn.base is None else len(drawn))


def _drawn(kind: CanaryType, canaries: int, *, form: DataFormat, staging: Staging, on_progress: OnProgress) -> Drawn:
    """Return the candidates; whatever it takes to make them lies beside the coins, where the training does not read."""
    scratch = staging.folder / "scratch"
    scratch.mkdir(mode=0o700)
    return _distinct(kind, form.records, canaries, form, scratch, on_progress)


def _make(kind: CanaryType, drawn: Drawn, *, form: DataFormat, data: Staging, sealed: Staging) -> SealedCoins:
    """Toss the coins and make planted data and sealed file where nobody looks for them yet."""
    included = np.frombuffer(secrets.token_bytes(len(drawn)), np.uint8) % 2 == 1
    data.content.mkdir(mode=0o700)
    data.content.chmod(0o700)  # whatever the umask
    planted = _write(form, drawn, drawn.take(np.flatnonzero(included)), data.content / form.name)
    records = form.records
    truth = SealedCoins(
        candidates=replace(_records(drawn, records), name=f"{kind.name} canaries planted in {records.name}"),
        included=included,
        kind=kind.name,
        data=form.name,
        data_digest=data_digest(planted),
        reading=form.reading,
        salt=secrets.token_hex(32),
    )
    descriptor = os.open(sealed.content, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        truth.write(file)
    public = {
        "data": form.name,
        "data_digest": truth.data_digest,
        "canaries": len(drawn),
        "kind": kind.name,
        "commitment": truth.commitment,
    }
    (data.content / PUBLIC).write_text(json.dumps(public, indent=2) + "\n")
    return truth


def _refuse_inside(secret: Path, *folders: Path | None) -> None:
    for folder in folders:
        if folder is not None and _real(secret).is_relative_to(_real(folder)):
            raise PlanError(
                f"the sealed file {secret} would lie in the data's folder {folder}, where the training can "
                "read it; put it somewhere else"
            )


def _real(path: Path) -> Path:
    """Return an absolute path without links; a link to itself, at which `Path.resolve` fails, stays as it is."""
    return Path(os.path.realpath(path))


def _refuse_in_use(out: Path) -> None:
    """Refuse a folder that cannot be replaced, or not without somebody standing in nothing afterwards."""
    if out.is_dir() and (out.samefile(Path.cwd()) or out.is_mount()):
        what = "the working folder" if out.samefile(Path.cwd()) else "a mount point"
        raise PlanError(
            f"{out} is {what}, and the planted data appear as a whole; give a new folder, e.g. {out / 'planted'}"
        )


def _distinct(
    kind: CanaryType, records: Records, count: int, form: DataFormat, scratch: Path, on_progress: OnProgress
) -> Drawn:
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


def _write(form: DataFormat, drawn: Drawn, added: Drawn, path: Path) -> Records:
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
