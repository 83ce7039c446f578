"""A file of recorded outputs, read as the target of an audit: rows of records, with who was a member."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.recorded_models import MOST_RECORDS, RecordedModel, RecordedShadows, row_numbers
from attacks.target import Target
from auditor.context import RunContext
from auditor.datasets.reading import check_class_count
from auditor.evidence.subgroups import check_slices
from auditor.files.score_files import KINDS, Arrays, read_scores
from auditor.plan.plan import Plan, TargetPlan
from auditor.subject import AuditSubject, Description, OnTrust
from auditor.targets.owner_claims import (
    MEMBERS,
    claim_on_trust,
    coins_on_trust,
    population_on_trust,
    refuse_unfair,
    stated_claim,
)
from defenses.errors import DataError
from defenses.randomness import stream
from defenses.records import Inclusion, Records, Split, Table
from defenses.schemes.none import NoDefense
from reports.records.grounds import HOLDOUT
from reports.untrusted import printable

Float64Array = npt.NDArray[np.float64]
_LEAST_PROBABILITY = 1e-12
_LEAST_LOSS = 1e-12
_EXACT = 2**53  # whole numbers up to here are exact in float64
_LARGEST_SCORE = 12.0  # read as a logit; the probabilities of much larger ones are all 1 in float64


class RecordedScores(TargetPlan):
    """What a model said about records and who of them was in its training, recorded in a .npz or .csv file."""

    name: ClassVar[str] = "scores"

    path: str
    inclusion: Literal["fixed", "independent_coins"] = "fixed"

    def build(self, plan: Plan, context: RunContext) -> AuditSubject:
        """Read recorded outputs; attacks that need weights, other queries or more shadows are not applicable.

        Raises:
            DataError: If the file cannot be read, an array is missing, has another shape, or holds NaN.
        """
        path = context.plan_folder / self.path
        file = _ScoreFile.read(path, max_memory=context.max_memory)
        coins = self.inclusion == "independent_coins"
        if coins:
            refuse_unfair(file.member)
        target, included = _target(file)
        check_slices(plan.slices, target.candidates)
        split = Split(
            included=included,
            inclusion=Inclusion.INDEPENDENT if coins else Inclusion.FIXED,
            probability=0.5 if coins else float(file.member.mean()),
        )
        return AuditSubject(
            target=target,
            split=split,
            defense=NoDefense(),
            scheme="not stated",
            claimed=stated_claim(plan),
            proved=None,
            store=context.workspace.store(),
            description=_description(plan, target, split),
            control_reason="only recorded outputs were given, so no model could be trained like the target",
            seed_commitment="none: the target was trained elsewhere",
            remarks={"recorded": _remarks(file.arrays, file.kind)},
        )


@dataclass(frozen=True)
class _ScoreFile:
    """What stands in a file of recorded outputs.

    Attributes:
        arrays: By name; see `docs/scores.md`.
        shown: Name of the file in messages.
        kind: What was recorded: "logits", "probabilities", "loss" or "score".
        member: (m,) bool.
        scale: What is subtracted from scores and what they are divided by.
    """

    arrays: Arrays
    shown: str
    kind: str
    member: npt.NDArray[np.bool_]
    scale: tuple[float, float]

    @classmethod
    def read(cls, path: Path, *, max_memory: int) -> "_ScoreFile":
        shown = printable(path.name)
        arrays = read_scores(path, max_memory=max_memory)
        kind = _kind(arrays, shown)
        member = _flags(arrays, "member", shown, axes=1)
        rows = len(member)
        if not 2 <= rows <= MOST_RECORDS:
            raise DataError(f"{shown}: {rows} records; give 2 to {MOST_RECORDS}")
        if not member.any() or member.all():
            raise DataError(f"{shown}: {int(member.sum())} of {rows} records are members; give members and non-members")
        return cls(arrays, shown, kind, member, _scale(arrays, kind))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all arrays."""
        parts = (name.encode() + self.arrays[name].tobytes() for name in sorted(self.arrays))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def logits(self, prefix: str, *shape: int) -> Float64Array:
        """Return recorded outputs as logits (*shape, C)."""
        return _logits(self.arrays, self.kind, prefix, shape, self.scale, self.shown)

    def labels(self, name: str, rows: int, classes: int) -> npt.NDArray[np.int64]:
        """Return true classes (rows,)."""
        return _labels(self.arrays, name, self.kind, rows, classes, self.shown)


def _target(file: _ScoreFile) -> tuple[Target, npt.NDArray[np.bool_]]:
    """Return recorded outputs as a target, and who of its candidates was in."""
    arrays, kind, rows = file.arrays, file.kind, len(file.member)
    logits = file.logits("", rows)
    classes = logits.shape[-1]
    check_class_count(classes, rows, file.shown)
    label = file.labels("label", rows, classes)
    order = stream(0, "order", file.digest).permutation(rows)  # members first would be the answer key
    z = len(arrays.get(f"population_{kind}", ()))
    outside = file.logits("population_", z) if z else np.empty((0, classes))
    if outside.shape[-1] != classes:
        raise DataError(f"{file.shown}: {classes} classes for candidates, {outside.shape[-1]} for population")
    table = Table((), "label", tuple(str(value) for value in range(classes)))
    owner = None if "owner" not in arrays else _whole(arrays["owner"], "owner", rows, file.shown)[order]
    candidates = Records(row_numbers(0, rows), label[order], classes, table, name=file.shown, owner=owner)
    population = None
    if z:
        of_population = file.labels("population_label", z, classes)
        population = Records(row_numbers(rows, z), of_population, classes, table, name=file.shown)
    target = Target(
        model=RecordedModel(np.concatenate([logits[order], outside])),
        candidates=candidates,
        digest=file.digest,
        population=population,
        shadows=_shadows(file, z, order),
        access=frozenset({Capability.LOGITS}),
    )
    return target, file.member[order]


def _description(plan: Plan, target: Target, split: Split) -> Description:
    alike = OnTrust("That the recorded shadow models were trained like the target, each on its members.")
    return Description(
        called="recorded outputs",
        on_trust=(
            MEMBERS,
            *coins_on_trust(split),
            OnTrust("That the recorded outputs are those of the model in use."),
            *(() if target.shadows is None else (alike,)),
            *population_on_trust(target, compared=False),
            *claim_on_trust(plan),
        ),
        tested_sides=frozenset({HOLDOUT}),  # scores come without records, so the sides cannot be compared
        digest_is_private=True,  # of what was said about each record, which only its owner shall recognise
        identities=[row.tobytes() for row in target.logits(target.candidates.x)],  # the records are row numbers
    )


def _kind(arrays: Arrays, shown: str) -> str:
    there = [kind for kind in KINDS if kind in arrays]
    if len(there) != 1:
        raise DataError(f"{shown}: it has {' and '.join(there) or 'none'} of {', '.join(KINDS)}; give exactly one")
    return there[0]


def _flags(arrays: Arrays, name: str, shown: str, *, axes: int) -> npt.NDArray[np.bool_]:
    if name not in arrays:
        raise DataError(f"{shown}: {name} is missing; it says who was in training, 1 or 0")
    if not np.isin(arrays[name], (0, 1)).all():
        raise DataError(f"{shown}: {name} holds other values than 0 and 1; give 1 for members and 0 for others")
    if arrays[name].ndim != axes:
        raise DataError(f"{shown}: {name} has shape {arrays[name].shape}; give it {axes} axes")
    return arrays[name].astype(np.bool_)


def _whole(values: npt.NDArray[Any], name: str, rows: int, shown: str) -> npt.NDArray[np.int64]:
    exact = values.shape == (rows,) and (np.abs(values.astype(np.float64)) <= _EXACT).all()
    if not exact or (values != np.floor(values)).any():
        raise DataError(f"{shown}: {name} has shape {values.shape}; give {rows} whole numbers up to 2**53")
    return values.astype(np.int64)


def _labels(arrays: Arrays, name: str, kind: str, rows: int, classes: int, shown: str) -> npt.NDArray[np.int64]:
    if kind in ("loss", "score"):  # these are about the true class already, which stands first
        return np.zeros(rows, dtype=np.int64)
    if name not in arrays:
        raise DataError(f"{shown}: {name} is missing; {kind} say nothing without the true class")
    found = _whole(arrays[name], name, rows, shown)
    if found.min() < 0 or found.max() >= classes:
        raise DataError(f"{shown}: {name} reaches {found.min()}..{found.max()}; there are classes 0..{classes - 1}")
    return found


def _scale(arrays: Arrays, kind: str) -> tuple[float, float]:
    """Return what is subtracted from scores and what they are divided by; the same for all models and records."""
    if kind != "score":
        return 0.0, 1.0
    middle = float(np.median(arrays["score"]))
    far = max(float(np.abs(values - middle).max()) for name, values in arrays.items() if name.endswith(kind))
    return middle, max(1.0, far / _LARGEST_SCORE)


def _logits(
    arrays: Arrays, kind: str, prefix: str, shape: tuple[int, ...], scale: tuple[float, float], shown: str
) -> Float64Array:
    """Return recorded outputs as logits (*shape, C); of two classes, the true one first, where one number is given."""
    name = f"{prefix}{kind}"
    if name not in arrays:
        raise DataError(f"{shown}: {name} is missing; give what the candidates have for all models and records")
    values = np.asarray(arrays[name], dtype=np.float64)
    wide = kind in ("logits", "probabilities")
    if values.shape[: len(shape)] != shape or values.ndim != len(shape) + wide or (wide and values.shape[-1] < 2):
        wanted = ", ".join(map(str, shape)) + (", at least 2" if wide else "")
        raise DataError(f"{shown}: {name} has shape {values.shape}; want ({wanted})")
    if kind == "logits":
        return values
    if kind == "probabilities":
        if (values < 0).any() or (values > 1).any():
            raise DataError(f"{shown}: {name} holds values outside [0, 1]")
        return np.log(np.maximum(values, _LEAST_PROBABILITY))
    if kind == "loss" and (values < 0).any():
        raise DataError(f"{shown}: {name} holds negative losses; give cross-entropy losses, or score")
    true = (values - scale[0]) / scale[1] if kind == "score" else -np.log(np.expm1(np.clip(values, _LEAST_LOSS, 700)))
    return np.stack([true, np.zeros_like(true)], axis=-1)


def _shadows(file: _ScoreFile, z: int, order: npt.NDArray[np.intp]) -> RecordedShadows | None:
    arrays, shown, rows = file.arrays, file.shown, len(file.member)
    if f"shadow_{file.kind}" not in arrays and "shadow_member" not in arrays:
        return None
    members = _flags(arrays, "shadow_member", shown, axes=2)
    if members.shape[1] != rows:
        raise DataError(f"{shown}: shadow_member has shape {members.shape}; want (shadows, {rows})")
    k = len(members)
    logits = file.logits("shadow_", k, rows)
    outside = file.logits("shadow_population_", k, z) if z else logits[:, :0]
    return RecordedShadows(logits[:, order], members[:, order], outside)


def _remarks(arrays: Arrays, kind: str) -> list[str]:
    found = [f"outputs were given as {kind}"]
    if kind == "probabilities":
        zeros = int((arrays[kind] < _LEAST_PROBABILITY).sum())
        if zeros:
            found.append(f"{zeros} probabilities are 0: rounded outputs hide leaks from LiRA; give logits")
    return found
