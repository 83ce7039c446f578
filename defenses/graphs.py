"""Pure functions of tensors, traced once for each shape they are called with, and compiled where that was asked for.

`torch.func` interprets its transforms in Python at every call, which costs more than the arithmetic of a small network.
Tracing records the operations once; running the record costs a few microseconds per operation, needs no compiler, and
does bit for bit the same. Compiling (TorchInductor) fuses them on top, at some seconds per shape.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

_log = logging.getLogger(__name__)
_said: set[str] = set()


class Graph:
    """A pure function with a record per shape of its arguments.

    Args:
        function: Takes and returns nested dicts, lists and tuples of tensors; control flow must not depend on values.
        name: What the log calls it.
    """

    def __init__(self, function: Callable[..., Any], *, name: str) -> None:
        self._function, self._name = function, name
        self._traced: dict[object, _Record] = {}
        self._compiled: dict[object, _Record] = {}

    def __call__(self, *arguments: Any, compiled: bool = False) -> Any:
        """Evaluate the function; `compiled` asks for the compiled record of this shape, where there can be one."""
        leaves = list(_leaves(arguments))
        key = tuple((leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves)
        known = self._compiled if compiled else self._traced
        record = known.get(key)
        if record is None:
            record = self._traced.get(key) or self._trace(leaves, arguments)
            self._traced[key] = record
            if compiled:
                record = self._compiled[key] = self._compile(record, leaves)
        return _rebuilt(record.answer, iter(record.run(*leaves)))

    def _trace(self, leaves: list[Tensor], arguments: tuple[Any, ...]) -> "_Record":
        answers: list[Any] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            answers.append(self._function(*_rebuilt(arguments, iter(leaves))))
            return list(_leaves(answers[-1]))

        flat(*leaves)  # what a function finds it cannot do, and does otherwise from then on, must not be recorded
        try:
            graph = make_fx(flat)(*leaves)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            say_once(f"{self._name} cannot be traced and runs slower: {first_line(error)}")
            return _Record(flat, _emptied(answers[-1]))
        _drop_added_zeros(graph)
        return _Record(graph, _emptied(answers[-1]))

    def _compile(self, record: "_Record", leaves: list[Tensor]) -> "_Record":
        if not isinstance(record.run, fx.GraphModule):
            return record
        try:
            from torch._inductor import compile as compile_graph  # seconds to import

            compiled = compile_graph(record.run, list(leaves))
            compiled(*leaves)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no C++ compiler, or an operation that it cannot lower
            say_once(f"{self._name} cannot be compiled and runs as traced: {first_line(error)}")
            return record
        return _Record(compiled, record.answer)


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


def _drop_added_zeros(graph: fx.GraphModule) -> None:
    """Remove additions of constant zeros: they were there to differentiate by, and have done their work."""
    zeros = {torch.ops.aten.zeros.default, torch.ops.aten.new_zeros.default}
    for node in graph.graph.nodes:
        if node.target is not torch.ops.aten.add.Tensor or node.kwargs:
            continue
        kept, added = node.args
        if isinstance(added, fx.Node) and added.target in zeros and isinstance(kept, fx.Node):
            shapes = [entry.meta["val"].shape for entry in (node, kept)]
            if shapes[0] == shapes[1]:
                node.replace_all_uses_with(kept)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def say_once(message: str) -> None:
    """Log a warning, unless this process has logged it before."""
    if message not in _said:
        _said.add(message)
        _log.warning("%s", message)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
