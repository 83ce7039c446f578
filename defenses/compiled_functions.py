"""Pure functions of tensors, recorded once for each shape they are called with, and compiled where that was asked for.

`torch.func` interprets its transforms in Python at every call, which costs more than the arithmetic of a small network.
A record keeps the operations that were left once they were interpreted; running it costs a few microseconds per
operation, needs no compiler, and does bit for bit the same. Compiling (TorchInductor) fuses them on top, at some
seconds per shape. PyTorch's own `make_fx` records the same in ten times the time, which Poisson lots, whose sizes
differ, would feel; and it takes what it does not know for a constant, which is refused here where it could be wrong.
"""

import logging
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from defenses.private_files import private_folder

_log = logging.getLogger(__name__)
_said: set[str] = set()


class CompiledFunction:
    """A pure function with a record per shape of its arguments.

    Args:
        function: Takes and returns nested dicts, lists and tuples of tensors; control flow must not depend on values.
        name: What the log calls it.
    """

    def __init__(self, function: Callable[..., Any], *, name: str) -> None:
        self._function, self._name = function, name
        self._recorded: dict[object, _Record] = {}
        self._compiled: dict[object, _Record] = {}

    def __call__(self, *arguments: Any, compiled: bool = False) -> Any:
        """Evaluate the function; `compiled` asks for the compiled record of this shape, where there can be one."""
        leaves = list(_leaves(arguments))
        key = tuple((leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves)
        known = self._compiled if compiled else self._recorded
        record = known.get(key)
        if record is None:
            record = self._recorded.get(key) or self._record(leaves, arguments)
            self._recorded[key] = record
            if compiled:
                record = self._compiled[key] = self._compile(record, leaves)
        return _rebuilt(record.answer, iter(record.run(*leaves)))

    def _record(self, leaves: list[Tensor], arguments: tuple[Any, ...]) -> "_Record":
        answers: list[Any] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            answers.append(self._function(*_rebuilt(arguments, iter(leaves))))
            return list(_leaves(answers[-1]))

        flat(*leaves)  # what a function finds it cannot do, and does otherwise from then on, must not be recorded
        recorder = _Recorder(leaves)
        try:
            with recorder:
                flat(*leaves)
            graph = recorder.module(list(_leaves(answers[-1])))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            say_once(f"{self._name} cannot be recorded and runs slower: {first_line(error)}")
            return _Record(flat, _emptied(answers[-1]))
        return _Record(graph, _emptied(answers[-1]))

    def _compile(self, record: "_Record", leaves: list[Tensor]) -> "_Record":
        if not isinstance(record.run, fx.GraphModule):
            return record
        try:
            # A PyTorch that was built for CUDA warns, while the compiler is imported, that there is no GPU.
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            from torch._inductor import standalone_compile  # seconds to import

            _keep_compiled_code_private()
            # Unlike torch._inductor.compile it keeps what it compiled on disk, for the next process.
            compiled = standalone_compile(record.run, list(leaves), dynamic_shapes="from_example_inputs")
            compiled(*leaves)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no C++ compiler, or an operation that it cannot lower
            say_once(f"{self._name} cannot be compiled and runs as recorded: {first_line(error)}")
            return record
        return _Record(compiled, record.answer)


def _keep_compiled_code_private() -> None:
    """Let TorchInductor keep what it compiled in a folder of this user's own; its default lies among shared ones.

    What is loaded from there is run. The folder is not in a work folder either, which somebody else may have brought.
    One that the user names is taken if only the user can write there.

    Raises:
        PlanError: If others can reach the folder.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if named is None or named == default_cache_dir():  # torch itself sets the variable to its default
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        named = os.path.join(cache, "privacy-auditor", "compiled")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder(Path(named)))


@dataclass(frozen=True)
class _Record:
    """How to run a function on flat tensors of one shape, and the structure of its answer."""

    run: Callable[..., Any]
    answer: Any


def _leaves(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested dicts, lists and tuples; PyTorch's own trees take longer than a small network."""
    if isinstance(value, Tensor):
        yield value
    else:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _leaves(entry)


def _rebuilt(like: Any, leaves: Iterator[Tensor]) -> Any:
    if isinstance(like, dict):
        return {name: _rebuilt(entry, leaves) for name, entry in like.items()}
    if isinstance(like, (list, tuple)):
        return tuple(_rebuilt(entry, leaves) for entry in like)
    return next(leaves)


def _emptied(value: Any) -> Any:
    """Return the structure without the tensors, so that a record keeps none alive."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, dict):
        return {name: _emptied(entry) for name, entry in value.items()}
    return tuple(_emptied(entry) for entry in value)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, writes down the operations below all transforms; tensors are known by identity."""

    def __init__(self, leaves: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph, self._constants = fx.Graph(), nn.Module()
        self._nodes: dict[int, fx.Node] = {}
        self._seen: list[Tensor] = []  # kept, so that no other tensor takes over an identity
        self._storages: set[int] = set()
        for position, leaf in enumerate(leaves):
            self._note(leaf, self._graph.placeholder(f"leaf_{position}"))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(f"it looks at values ({func})")
        written = tree_map_only(Tensor, self._node, (args, kwargs or {}))
        node = self._graph.call_function(func, *written)
        if isinstance(answer, Tensor):
            self._note(answer, node)
        elif isinstance(answer, (list, tuple)):
            for position, entry in enumerate(answer):
                if isinstance(entry, Tensor):
                    self._note(entry, self._graph.call_function(operator.getitem, (node, position)))
                elif isinstance(entry, (list, tuple)):
                    raise RuntimeError(f"it uses {func}, which answers with nested lists")
        return answer

    def module(self, answers: list[Tensor]) -> fx.GraphModule:
        """Return what was recorded, with these tensors as its answers."""
        self._graph.output([self._node(answer) for answer in answers])
        _drop_added_zeros(self._graph)
        return fx.GraphModule(self._constants, self._graph)

    def _note(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta["shape"] = tensor.shape
        self._nodes[id(tensor)] = node
        self._seen.append(tensor)
        self._storages.add(tensor.untyped_storage().data_ptr())

    def _node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._nodes:
            # A constant of the function's own; but not another face of a recorded tensor, which changes with it.
            if tensor.numel() and tensor.untyped_storage().data_ptr() in self._storages:
                raise RuntimeError("a tensor has changed its identity")
            name = f"constant_{len(self._seen)}"
            self._constants.register_buffer(name, tensor)
            self._note(tensor, self._graph.get_attr(name))
        return self._nodes[id(tensor)]


def _drop_added_zeros(graph: fx.Graph) -> None:
    """Remove additions of constant zeros: they were there to differentiate by, and have done their work."""
    zeros = {torch.ops.aten.zeros.default, torch.ops.aten.new_zeros.default}
    for node in graph.nodes:
        if node.target is not torch.ops.aten.add.Tensor or node.kwargs:
            continue
        kept, added = node.args
        if not (isinstance(added, fx.Node) and added.target in zeros and isinstance(kept, fx.Node)):
            continue
        if node.meta["shape"] == kept.meta["shape"]:
            node.replace_all_uses_with(kept)
    graph.eliminate_dead_code()


def say_once(message: str) -> None:
    """Log a warning, unless this process has logged it before."""
    if message not in _said:
        _said.add(message)
        _log.warning("%s", message)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
