"""A file becomes model weights, without ever executing what the file contains."""

import hashlib
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from auditor.datasets.member_nonmember_checks import check_records
from auditor.files.memory_budget import check_budget, default_budget
from auditor.files.state_pickle import Inert, Storage, Stored
from auditor.files.weights_file import CONVERT, contents_of
from defenses.errors import CheckpointError
from reports.untrusted import guarded, open_regular, printable

__all__ = ["Checkpoint", "check_records", "fit_weights", "read_checkpoint"]

Module = TypeVar("Module", bound=torch.nn.Module)

NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep the weights, beside an optimiser and counters."""

DEEPEST = 8
"""How often the weights may lie under one of these keys inside another."""

WRAPPERS = {"module.": "DataParallel", "_module.": "Opacus"}
"""Prefixes that a wrapper puts before every name. (That of torch.compile may stand anywhere and is treated apart.)"""

_NARROW = (torch.float16, torch.bfloat16)
_PLAIN = (
    *_NARROW,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        weights: Tensors on the CPU by parameter or buffer name.
        digest: SHA-256 (hex) of the file.
        name: Name of the file, for errors and reports.
        notes: What was unwrapped, renamed, converted or left out on the way, one sentence each.
    """

    weights: dict[str, torch.Tensor]
    digest: str
    name: str = "checkpoint"
    notes: tuple[str, ...] = field(default=())


def read_checkpoint(path: str | Path, *, max_memory: int | None = None) -> Checkpoint:
    """Read model weights from a `.safetensors` file or a state dict written by `torch.save`.

    What the file is, is decided by its content, never by its name. Only tensors, containers and plain values are read;
    a file that would need more than that is refused, because reading it could run code. Sizes that it states are
    compared with the bytes that are there before any are read, and only the weights are.

    Args:
        path: The file.
        max_memory: Bytes of memory that reading may take; None takes half of what the process may use.

    Returns:
        The weights, unwrapped from dictionaries around them and from the prefixes of DataParallel, Opacus and
        torch.compile; 16-bit floats are widened to float32.

    Raises:
        CheckpointError: If the file is not there, would execute code on loading, is damaged, or holds no weights.

    Examples:
        >>> checkpoint = read_checkpoint("model.pt")  # doctest: +SKIP
        >>> checkpoint.notes  # doctest: +SKIP
        ("took the weights under 'state_dict' and left 'epoch' aside",)
    """
    path = Path(path).expanduser()
    shown = printable(str(path), longest=160)
    budget = default_budget() if max_memory is None else max_memory
    with (
        open_regular(path, error=CheckpointError) as file,
        guarded(shown, error=CheckpointError, remedy="it is damaged, so copy or save it again"),
    ):
        size = os.fstat(file.fileno()).st_size
        check_budget(size, budget, shown, error=CheckpointError)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it can readinto
        file.seek(0)
        notes: list[str] = []
        with contents_of(file, shown, size=size, max_memory=budget) as contents:
            found = _renamed(_unwrapped(contents.tree, shown, notes), shown, notes)
            _refuse_odd(found, shown)
            weights = _widened(_loaded(found, shown, read=contents.read, budget=budget), notes)
    return Checkpoint(weights, digest, printable(path.name), tuple(notes))


def fit_weights(module: Module, checkpoint: Checkpoint) -> Module:
    """Put the weights into a module of the architecture that they were trained in.

    Args:
        module: The architecture; it is changed in place, and only if everything fits.
        checkpoint: From `read_checkpoint`.

    Returns:
        The same module, in the mode (train or eval) that it was in.

    Raises:
        CheckpointError: If names, shapes or kinds of numbers differ, or a weight is not finite; the sentence names the
            first few of each kind, and how many there are.

    Examples:
        >>> module = torch.nn.Linear(2, 3)
        >>> _ = fit_weights(module, Checkpoint(torch.nn.Linear(2, 3).state_dict(), digest=""))
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    weights = checkpoint.weights
    for prefix in WRAPPERS:
        # The architecture itself may have a part of that name; then the prefix was no wrapper's.
        if weights.keys() != expected.keys() and {prefix + name for name in weights} == expected.keys():
            weights = {prefix + name: value for name, value in weights.items()}
    _refuse_misfit(expected, weights, checkpoint.name)
    _refuse_broken(expected, weights, checkpoint.name)
    # Not strict, because an entry that is not a tensor (an extra state) may be absent; all tensors are checked above.
    module.load_state_dict(weights, strict=False)
    return module


def _refuse_misfit(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], file: str) -> None:
    """Refuse weights whose names, shapes or kinds of numbers are not those of the architecture."""
    both = [name for name in expected if name in weights]
    problems = [
        _listed("it lacks", [name for name in expected if name not in weights]),
        _listed("the architecture does not have", [name for name in weights if name not in expected]),
        _listed(
            "shapes differ in",
            [
                f"{name} ({_shape(weights[name])} in the file, {_shape(expected[name])} in the architecture)"
                for name in both
                if weights[name].shape != expected[name].shape
            ],
        ),
        _listed(
            "kinds of numbers differ in",
            [
                f"{name} ({weights[name].dtype} in the file, {expected[name].dtype} in the architecture)"
                for name in both
                if weights[name].is_floating_point() != expected[name].is_floating_point()
            ],
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"{file} does not fit the architecture: {'; '.join(filter(None, problems))}. Name the "
            f"architecture, with the widths, input shape and number of classes, that the checkpoint was trained with"
        )


def _refuse_broken(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], file: str) -> None:
    """Refuse weights that are not finite."""
    # As the architecture will hold them: a float64 weight that float32 cannot hold would become infinite.
    broken = [
        name
        for name in expected
        if weights[name].is_floating_point() and not weights[name].to(expected[name].dtype).isfinite().all()
    ]
    if broken:
        raise CheckpointError(
            f"{file} {_listed('has NaN or infinite weights in', broken)}; its training diverged or the file "
            f"is damaged, so audit an earlier checkpoint"
        )


def _unwrapped(content: Any, path: str, notes: list[str]) -> dict[str, Any]:
    """Follow the usual keys down to the dictionary of tensors."""
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            kind = "Tensor" if _is_tensor(content) else type(content).__name__
            raise CheckpointError(f"{path} holds a {kind}, not a state dict; {CONVERT}")
        inside = [key for key in NESTS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        if len(inside) > 1:
            raise CheckpointError(
                f"{path} has weights under {_few(inside)}, and which of them is meant is not said; save only one, with "
                f"torch.save(checkpoint[{inside[0]!r}], 'weights.pt')"
            )
        aside = [key for key in content if key != inside[0]]
        notes.append(f"took the weights under {inside[0]!r}" + (f" and left {_few(aside)} aside" if aside else ""))
        content = content[inside[0]]
    else:
        raise CheckpointError(f"{path} has its weights under more than {DEEPEST} keys inside each other; {CONVERT}")
    weights = {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}
    if not weights:
        raise CheckpointError(f"{path} holds no weights: it has {_few(content) if content else 'nothing'}; {CONVERT}")
    if left_out := [key for key in content if key not in weights]:
        notes.append(f"left out {_few(left_out)}, which are not tensors")
    return weights


def _is_tensor(value: object) -> bool:
    return isinstance(value, (torch.Tensor, Stored)) or (isinstance(value, Inert) and value.is_tensor)


def _renamed(weights: dict[str, Any], path: str, notes: list[str]) -> dict[str, Any]:
    """Take away what wrappers put into the names."""
    renamed = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    if len(renamed) < len(weights):
        raise CheckpointError(
            f"{path} has weights of the same name with and without '_orig_mod.'; save the state dict of one model only"
        )
    if renamed.keys() != weights.keys():
        notes.append("removed '_orig_mod.' (torch.compile) from the names")
    while prefix := next((one for one in WRAPPERS if all(name.startswith(one) for name in renamed)), None):
        renamed = {name.removeprefix(prefix): value for name, value in renamed.items()}
        notes.append(f"removed the prefix {prefix!r} ({WRAPPERS[prefix]}) from the names")
    return renamed


def _refuse_odd(found: Mapping[str, Any], path: str) -> None:
    """Refuse numbers that need a scale to be read, or that are not all there."""
    odd = [
        f"{name} ({value if isinstance(value, Inert) else value.dtype})"
        for name, value in found.items()
        if isinstance(value, Inert) or value.dtype not in _PLAIN
    ]
    if odd:
        raise CheckpointError(
            f"{path} {_listed('has quantised, sparse or empty weights in', odd)}; save the model in float32 before "
            "that step"
        )


def _loaded(
    found: Mapping[str, Any], path: str, *, read: Callable[[Storage], bytearray], budget: int
) -> dict[str, torch.Tensor]:
    """Read the storages of the weights, each once: tied weights share one."""
    storages = {value.storage.key: value.storage for value in found.values() if isinstance(value, Stored)}
    wide = sum(4 * _count(value) for value in found.values() if value.dtype in _NARROW)
    check_budget(sum(one.nbytes for one in storages.values()) + wide, budget, path, error=CheckpointError)
    content = {key: read(storage) for key, storage in storages.items()}
    return {
        name: _tensor(value, content[value.storage.key]) if isinstance(value, Stored) else value
        for name, value in found.items()
    }


def _count(value: torch.Tensor | Stored) -> int:
    return math.prod(value.size if isinstance(value, Stored) else value.shape)


def _tensor(value: Stored, content: bytearray) -> torch.Tensor:
    if not _count(value):
        return torch.empty(value.size, dtype=value.dtype)
    numbers = torch.frombuffer(content, dtype=value.dtype, count=len(content) // value.dtype.itemsize)
    return numbers.as_strided(value.size, value.stride, value.offset)


def _widened(weights: dict[str, torch.Tensor], notes: list[str]) -> dict[str, torch.Tensor]:
    """Turn 16-bit floats into float32."""
    narrow = [name for name, value in weights.items() if value.dtype in _NARROW]
    if narrow:
        notes.append(f"widened {len(narrow)} of {len(weights)} tensors from {weights[narrow[0]].dtype} to float32")
    return {name: value.float() if value.dtype in _NARROW else value for name, value in weights.items()}


def _shape(value: torch.Tensor) -> str:
    return printable(str(tuple(value.shape)), longest=60)


def _few(names: Collection[object], *, most: int = 5, room: int = 120) -> str:
    """Return the first names, until they fill the room in characters; names from a file may be long."""
    shown: list[str] = []
    for name in list(names)[:most]:
        shown.append(printable(str(name), longest=100))
        if sum(map(len, shown)) > room:
            break
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _listed(what: str, names: Collection[str]) -> str:
    return f"{what} {_few(names, room=240)} ({len(names)} in all)" if names else ""
