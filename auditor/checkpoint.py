"""A file becomes model weights, without ever executing what the file contains."""

import hashlib
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from auditor.datasets.sides import check_records
from defenses.errors import CheckpointError

__all__ = ["Checkpoint", "check_records", "fit_weights", "read_checkpoint"]

Module = TypeVar("Module", bound=torch.nn.Module)

CONVERT = (
    "load it where it was trained and save only the weights, with torch.save(model.state_dict(), 'weights.pt') or "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)
"""How a checkpoint that cannot be read safely becomes one that can."""

NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep the weights, beside an optimiser and counters."""

WRAPPERS = {"module.": "DataParallel", "_module.": "Opacus"}
"""Prefixes that a wrapper puts before every name. (That of torch.compile may stand anywhere and is treated apart.)"""

# A file of torch.save before version 1.6 begins with this number, pickled, so it is known before anything is unpickled.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SAFETENSORS_HEADER_LIMIT = 100_000_000
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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read model weights from a `.safetensors` file or a state dict written by `torch.save`.

    What the file is, is decided by its content, never by its name. Only tensors, containers and plain values are read;
    a file that would need more than that is refused, because reading it could run code.

    Args:
        path: The file.

    Returns:
        The weights, unwrapped from dictionaries around them and from the prefixes of DataParallel, Opacus and
        torch.compile; 16-bit floats are widened to float32.

    Raises:
        CheckpointError: If the file is not there, would execute code on loading, is damaged, or holds no weights.

    Example:
        >>> checkpoint = read_checkpoint("model.pt")  # doctest: +SKIP
        >>> checkpoint.notes  # doctest: +SKIP
        ("took the weights under 'state_dict' and left 'epoch' aside",)
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}; correct the path")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content = _load_safetensors(path) if _is_safetensors(path) else _load_torch(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    notes: list[str] = []
    weights = _widened(_renamed(_unwrapped(content, path, notes), path, notes), path, notes)
    return Checkpoint(weights, digest, path.name, tuple(notes))


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

    Example:
        >>> module = torch.nn.Linear(2, 3)
        >>> _ = fit_weights(module, Checkpoint(torch.nn.Linear(2, 3).state_dict(), digest=""))
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    weights = checkpoint.weights
    for prefix in WRAPPERS:
        # The architecture itself may have a part of that name; then the prefix was no wrapper's.
        if weights.keys() != expected.keys() and {prefix + name for name in weights} == expected.keys():
            weights = {prefix + name: value for name, value in weights.items()}
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
            f"{checkpoint.name} does not fit the architecture: {'; '.join(filter(None, problems))}. Name the "
            f"architecture, with the widths, input shape and number of classes, that the checkpoint was trained with"
        )
    broken = [name for name in both if weights[name].is_floating_point() and not weights[name].isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{checkpoint.name} {_listed('has NaN or infinite weights in', broken)}; its training diverged or the file "
            f"is damaged, so audit an earlier checkpoint"
        )
    # Not strict, because an entry that is not a tensor (an extra state) may be absent; all tensors are checked above.
    module.load_state_dict(weights, strict=False)
    return module


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return head[8:] == b"{" and 2 <= length <= min(path.stat().st_size - 8, _SAFETENSORS_HEADER_LIMIT)


def _load_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is a damaged safetensors file ({error}); copy or save it again") from None


def _load_torch(path: Path) -> object:
    """Read a file of `torch.save`, after its first bytes have shown that it is one."""
    if (reason := _refusal(path)) is not None:
        raise CheckpointError(f"{path} {reason}")
    try:
        # An open file, because for a path torch.load goes by the ending of the name.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = named[1] if named else "something that is not a tensor"
        raise CheckpointError(
            f"{path} holds more than weights, or is damaged: reading it would call {what}, which could run code, so it "
            f"was not read; {CONVERT}"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the reader, with anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is damaged ({reason}); copy or save it again") from None


def _refusal(path: Path) -> str | None:
    """Say why a file is not read at all, or return None for a file of `torch.save`."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                parts = {name.split("/", 1)[-1] for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return "is a damaged archive; copy or save it again"
        if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
            return f"is a TorchScript archive, which is a program and not only weights, so it was not read; {CONVERT}"
        if "data.pkl" not in parts:
            return f"is a zip archive that torch.save did not write; {CONVERT}"
        return None
    if head.startswith(b"\x80"):
        if _LEGACY_MAGIC in head[:16]:
            return None
        return f"is a pickle, which could run code when it is read, so it was not read; {CONVERT}"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"ZF", b"\x78")):
        return f"is compressed, as joblib writes its pickles, which could run code, so it was not read; {CONVERT}"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself; fetch it with git lfs pull"
    if tarfile.is_tarfile(path):
        return f"is a tar archive; unpack it and name the file with the weights, or {CONVERT}"
    # A pickle of protocol 0 has no mark of its own, so whatever is left might be one.
    return f"is neither a safetensors file nor one of torch.save, and may be a pickle, so it was not read; {CONVERT}"


def _unwrapped(content: object, path: Path, notes: list[str]) -> dict[str, torch.Tensor]:
    """Follow the usual keys down to the dictionary of tensors."""
    while True:
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; {CONVERT}")
        inside = [key for key in NESTS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        if len(inside) > 1:
            raise CheckpointError(
                f"{path} has weights under {_few(inside)}, and which of them is meant is not said; save only one, with "
                f"torch.save(checkpoint[{inside[0]!r}], 'weights.pt')"
            )
        aside = [str(key) for key in content if key != inside[0]]
        notes.append(f"took the weights under {inside[0]!r}" + (f" and left {_few(aside)} aside" if aside else ""))
        content = content[inside[0]]
    weights = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not weights:
        keys = _few([str(key) for key in content]) if content else "nothing"
        raise CheckpointError(f"{path} holds no weights: it has {keys}; {CONVERT}")
    left_out = [str(key) for key in content if key not in weights]
    if left_out:
        notes.append(f"left out {_few(left_out)}, which are not tensors")
    return {name: value.detach() for name, value in weights.items()}


def _renamed(weights: dict[str, torch.Tensor], path: Path, notes: list[str]) -> dict[str, torch.Tensor]:
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


def _widened(weights: dict[str, torch.Tensor], path: Path, notes: list[str]) -> dict[str, torch.Tensor]:
    """Turn 16-bit floats into float32, and refuse numbers that need a scale to be read."""
    odd = [
        f"{name} ({value.dtype}, {value.layout})"
        for name, value in weights.items()
        if value.dtype not in _PLAIN or value.layout != torch.strided or value.is_meta
    ]
    if odd:
        raise CheckpointError(
            f"{path} {_listed('has quantised, sparse or empty weights in', odd)}; save the model in float32 before "
            "that step"
        )
    narrow = [name for name, value in weights.items() if value.dtype in _NARROW]
    if narrow:
        notes.append(f"widened {len(narrow)} of {len(weights)} tensors from {weights[narrow[0]].dtype} to float32")
    return {name: value.float() if value.dtype in _NARROW else value for name, value in weights.items()}


def _shape(value: torch.Tensor) -> str:
    return str(tuple(value.shape))


def _few(names: Collection[str], most: int = 5) -> str:
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _listed(what: str, names: Collection[str]) -> str:
    return f"{what} {_few(names)} ({len(names)} in all)" if names else ""
