"""The pickle inside a file of `torch.save`, read as a description: nothing that it names is imported or called.

A pickle is a program for a small stack machine. Here its few operations that a state dict needs build dictionaries,
lists and plain values; a call of one of torch's functions becomes a `Stored` tensor, which says where its numbers lie,
or an `Inert` mark. So reading takes time and memory in proportion to the pickle, whatever sizes it states.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from defenses.errors import CheckpointError
from reports.untrusted import printable

__all__ = ["LONGEST_PICKLE", "Inert", "Refused", "Storage", "Stored", "described"]

LONGEST_PICKLE = 8 * 2**20
"""Bytes of pickle that are read; 1,000 tensors need about 100,000."""

_MOST_AXES = 64

_STORAGES: dict[str, torch.dtype | None] = {
    f"{module}.{kind}Storage": dtype
    for module in ("torch", "torch.cuda")
    for kind, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "QInt8": torch.qint8,
        "QUInt8": torch.quint8,
        "QInt32": torch.qint32,
    }.items()
} | {"torch.storage.UntypedStorage": None, "torch.storage.TypedStorage": None}

_DICTIONARIES = frozenset({"collections.OrderedDict", "collections.Counter"})

_HARMLESS = frozenset(
    {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex", "bytearray")}
    | {"_codecs.encode", "torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"}
    | {"torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2"}
    | {f"torch.per_{unit}_{kind}" for unit in ("tensor", "channel") for kind in ("affine", "symmetric")}
    | {"torch.per_channel_affine_float_qparams"}
)

_REBUILD = "torch._utils._rebuild_"


class Refused(Exception):  # noqa: N818  # no error of its own: the caller says it with the file's name
    """The pickle needs something that could run code; the text names it."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the numbers of one or several tensors lie.

    Attributes:
        key: Name of the storage in the file.
        dtype: Type of its numbers; None if it is only bytes.
        count: Numbers (or bytes) that it is said to have.
    """

    key: str
    dtype: torch.dtype | None
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes that it is said to have."""
        return self.count * (1 if self.dtype is None else self.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor that is described and not read yet: numbers of a storage from `offset` on, `stride` apart."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inert:
    """Something that is no weight, by the name of what would make it; it is neither imported nor called."""

    name: str

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor without plain numbers: quantised, sparse, or without a storage."""
        return self.name.startswith(_REBUILD)

    def __str__(self) -> str:
        return printable(self.name, longest=60)


def described(file: BinaryIO) -> tuple[Any, Mapping[str, Storage]]:
    """Read one pickle.

    Args:
        file: Open where the pickle begins; left open after its end.

    Returns:
        What it holds: dictionaries, lists, tuples, plain values, `Stored` and `Inert`; and its storages by key.

    Raises:
        Refused: If it names anything beside the parts of a checkpoint, or needs operations that a state dict does not.
        CheckpointError: If a tensor contradicts itself.
        Exception: If it is damaged; the caller is inside `guarded`.
    """
    machine = _Machine()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "STOP":
            return machine.stack[-1], machine.storages
        machine.step(operation.name, argument)
    raise EOFError("the pickle has no end")


_MARK = object()


class _Machine:
    """The stack machine; operations and their names are those of `pickletools`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self._last(count))]
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._extend(name)
        elif name != "PROTO":
            self._described(name, argument)

    def _described(self, name: str, argument: Any) -> None:
        """Describe what the pickle would import or call; neither is done."""
        if name == "GLOBAL":
            self.stack.append(_named(argument.replace(" ", ".", 1)))
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(_called(function, arguments))
        elif name == "BUILD":
            self.stack.pop()  # attributes of a dictionary or parameter, such as the versions of its modules
        else:
            raise Refused(f"the pickle operation {name}")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the pickle takes more from its stack than it put there")
        return self.stack[-count:]

    def _since_mark(self) -> list[Any]:
        found = []
        while (value := self.stack.pop()) is not _MARK:
            found.append(value)
        return found[::-1]

    def _storage(self, found: Any) -> Storage:
        kind, made_by, key, _, count, *view = _expect(found, tuple)
        name = _expect(made_by, _Global).name
        if kind != "storage" or name not in _STORAGES or any(view):
            raise ValueError("a storage is described in an unknown way")
        storage = Storage(_expect(key, str), _STORAGES[name], _whole((count,))[0])
        if self.storages.setdefault(storage.key, storage).nbytes != storage.nbytes:
            raise ValueError("a storage is described with two sizes")
        return storage

    def _extend(self, name: str) -> None:
        if name.endswith("S"):
            values = self._since_mark()
        else:
            count = 1 if name == "APPEND" else 2
            values = self._last(count)
            del self.stack[-count:]
        target = self.stack[-1]
        if name.startswith("APPEND"):
            _expect(target, list).extend(values)
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            # A tuple is not hashed, because one of tuples of tuples can take for ever; no weight has such a name.
            plain = key is None or isinstance(key, (str, int, float, bytes))
            _expect(target, dict)[key if plain else Inert(f"a {type(key).__name__}")] = value


_VALUES = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"})

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Inert("builtins.set"),
    "MARK": lambda: _MARK,
}


@dataclass(frozen=True)
class _Global:
    name: str


def _named(name: str) -> _Global | torch.dtype:
    module, _, last = name.rpartition(".")
    if module == "torch" and isinstance(found := getattr(torch, last, None), torch.dtype):
        return found
    if name in _STORAGES or name in _DICTIONARIES or name in _HARMLESS or name.startswith(_REBUILD):
        return _Global(name)
    raise Refused(printable(name.removeprefix("builtins.").removeprefix("__builtin__."), longest=80))


def _called(function: Any, arguments: Any) -> Any:
    """Return what a call describes, without calling anything."""
    name, given = _expect(function, _Global).name, _expect(arguments, tuple)
    if name in _DICTIONARIES:
        return {}
    if name == "torch.Size":
        return _expect(given[0], tuple) if given else ()
    if name in (f"{_REBUILD}parameter", f"{_REBUILD}parameter_with_state", "torch.nn.parameter.Parameter"):
        return given[0] if given and isinstance(given[0], (Stored, Inert)) else Inert(f"{_REBUILD}parameter")
    if name == "torch._tensor._rebuild_from_type_v2":
        return _called(given[0], given[2])
    if name in (f"{_REBUILD}tensor", f"{_REBUILD}tensor_v2", f"{_REBUILD}tensor_v3"):
        return _tensor(given, with_type=name.endswith("v3"))
    return Inert(name)


def _tensor(given: tuple[Any, ...], *, with_type: bool) -> Stored | Inert:
    storage, offset, size, stride, *others = given
    storage = _expect(storage, Storage)
    dtype = _expect(others[2], torch.dtype) if with_type else storage.dtype
    if dtype is None or (len(others) > (3 if with_type else 2) and others[-1]):  # a lazily negated or conjugated view
        return Inert(f"{_REBUILD}tensor")
    size, stride = _whole(size), _whole(stride)
    if len(size) != len(stride) or len(size) > _MOST_AXES:
        raise CheckpointError(f"has a tensor of {len(size)} sizes and {len(stride)} strides; save it again")
    (offset,) = _whole((offset,))
    found = Stored(storage, dtype, offset, size, stride)
    numbers, there = math.prod(size), storage.nbytes // dtype.itemsize
    last = found.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numbers else -1
    if numbers > there or last >= there:
        raise CheckpointError(
            f"has a tensor of shape {printable(str(size), longest=60)} on a storage of {there:,} numbers, so its "
            "sizes cannot be true; save it again, with .contiguous() if it is an expanded view"
        )
    return found


def _whole(values: Any) -> tuple[int, ...]:
    numbers: tuple[int, ...] = _expect(values, tuple)
    if not all(type(one) is int and 0 <= one < 2**62 for one in numbers):
        raise ValueError("a size, stride or offset is no whole number from 0 on")
    return numbers


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} stands where a {kind.__name__.lstrip('_').lower()} belongs")
    return value
