"""A file of recorded outputs, read as the target of an audit: rows of records, with who was a member."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.recorded_models import MOST_RECORDS, RecordedModel, RecordedShadows, row_numbers
from attacks.threat_model import Capability, Target
from auditor.context import Setting
from auditor.datasets.reading import check_class_count
from auditor.evidence.subgroups import check_slices
from auditor.files.score_files import KINDS, Arrays, read_scores
from auditor.plan.plan import Plan
from auditor.plan.sections import Scores
from auditor.subject import Subject
from auditor.targets.owner_claims import refuse_unfair, stated_claim
from defenses.errors import DataError
from defenses.randomness import stream
from defenses.records import Inclusion, Records, Split, Table
from defenses.schemes.none import NoDefense
from reports.untrusted import printable

Float64Array = npt.NDArray[np.float64]
_LEAST_PROBABILITY = 1e-12
_LEAST_LOSS = 1e-12
_EXACT = 2**53  # whole numbers up to here are exact in float64
_LARGEST_SCORE = 12.0  # read as a logit; the probabilities of much larger ones are all 1 in float64


def recorded_subject(plan: Plan, entry: Scores, setting: Setting) -> Subject:
    """Read recorded outputs.

    Args:
        plan: What to audit.
        entry: Names the file; see `docs/plans.md` for what stands in it.
        setting: Where the plan lies.

    Returns:
        The subject; attacks that need the model's weights, other queries or more shadows will be not applicable.

    Raises:
        DataError: If the file cannot be read, an array is missing, has another shape, or holds NaN.
    """
    path = setting.plan_folder / entry.path
    shown = printable(path.name)
    arrays = read_scores(path, max_memory=setting.max_memory)
    digest = hashlib.sha256(b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    kind = _kind(arrays, shown)
    member = _flags(arrays, "member", shown, axes=1)
    rows = len(member)
    if not 2 <= rows <= MOST_RECORDS:
        raise DataError(f"{shown}: {rows} records; give 2 to {MOST_RECORDS}")
    if not member.any() or member.all():
        raise DataError(f"{shown}: {int(member.sum())} of {rows} records are members; give members and non-members")
    coins = entry.inclusion == "independent_coins"
    if coins:
        refuse_unfair(member)
    scale = _scale(arrays, kind)
    logits = _logits(arrays, kind, "", (rows,), scale, shown)
    check_class_count(logits.shape[-1], rows, shown)
    label = _labels(arrays, "label", kind, rows, logits.shape[-1], shown)
    order = stream(0, "order", digest).permutation(rows)  # members first would be the answer key
    z = len(arrays.get(f"population_{kind}", ()))
    outside = _logits(arrays, kind, "population_", (z,), scale, shown) if z else np.empty((0, logits.shape[-1]))
    if outside.shape[-1] != logits.shape[-1]:
        raise DataError(f"{shown}: {logits.shape[-1]} classes for candidates, {outside.shape[-1]} for population")
    classes = logits.shape[-1]
    table = Table((), "label", tuple(str(value) for value in range(classes)))
    owner = None if "owner" not in arrays else _whole(arrays["owner"], "owner", rows, shown)[order]
    candidates = Records(row_numbers(0, rows), label[order], classes, table, name=shown, owner=owner)
    check_slices(plan.slices, candidates)
    population = None
    if z:
        of_population = _labels(arrays, "population_label", kind, z, classes, shown)
        population = Records(row_numbers(rows, z), of_population, classes, table, name=shown)
    included = member[order]
    target = Target(
        model=RecordedModel(np.concatenate([logits[order], outside])).eval(),
        candidates=candidates,
        digest=digest,
        population=population,
        shadows=_shadows(arrays, kind, rows, z, scale, order, shown),
        access=frozenset({Capability.LOGITS}),
    )
    return Subject(
        target=target,
        split=Split(
            canary=np.arange(rows),
            included=included,
            population=np.arange(rows, rows + z),
            inclusion=Inclusion.INDEPENDENT if coins else Inclusion.FIXED,
            probability=0.5 if coins else float(member.mean()),
        ),
        defense=NoDefense(),
        scheme="not stated",
        claimed=stated_claim(plan),
        proved=None,
        store=setting.workplace.store(),
        control_reason="only recorded outputs were given, so no model could be trained like the target",
        seed_commitment="none: the target was trained elsewhere",
        remarks={"recorded": _remarks(arrays, kind)},
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


def _shadows(
    arrays: Arrays, kind: str, rows: int, z: int, scale: tuple[float, float], order: npt.NDArray[np.intp], shown: str
) -> RecordedShadows | None:
    if f"shadow_{kind}" not in arrays and "shadow_member" not in arrays:
        return None
    members = _flags(arrays, "shadow_member", shown, axes=2)
    if members.shape[1] != rows:
        raise DataError(f"{shown}: shadow_member has shape {members.shape}; want (shadows, {rows})")
    k = len(members)
    logits = _logits(arrays, kind, "shadow_", (k, rows), scale, shown)
    outside = _logits(arrays, kind, "shadow_population_", (k, z), scale, shown) if z else logits[:, :0]
    return RecordedShadows(logits[:, order], members[:, order], outside)


def _remarks(arrays: Arrays, kind: str) -> list[str]:
    found = [f"outputs were given as {kind}"]
    if kind == "probabilities":
        zeros = int((arrays[kind] < _LEAST_PROBABILITY).sum())
        if zeros:
            found.append(f"{zeros} probabilities are 0: rounded outputs hide leaks from LiRA; give logits")
    return found
