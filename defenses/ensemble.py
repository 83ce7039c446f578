"""K trained models as one object: stacked weights, logits for all, one at a time as a module, files without code."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from defenses.architectures import Architecture
from defenses.errors import CheckpointError
from defenses.records import FloatArray, Shape
from defenses.updates import Tensors


@dataclass(frozen=True)
class Trace:
    """What one model's training left behind beside its weights, all of it public and JSON-ready.

    Attributes:
        facts: Public facts of the preparation, by name.
        state: The final state of its gradient rule, by name.
    """

    facts: Mapping[str, Any]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Ensemble:
    """K models of one architecture.

    Attributes:
        architecture: The network.
        shape: Shape of one record.
        classes: Number of classes C.
        parameters: name -> (K, *shape) tensors on the CPU.
        traces: One per model, or none at all.
    """

    architecture: Architecture
    shape: Shape
    classes: int
    parameters: Tensors
    traces: tuple[Trace, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def one(self, k: int) -> nn.Module:
        """Return model `k` as a module in evaluation mode, on the CPU."""
        dtype = next(value.dtype for value in self.parameters.values() if value.is_floating_point())
        module = self.architecture.build(self.shape, self.classes, seed=0, dtype=dtype)
        module.load_state_dict({name: value[k] for name, value in self.parameters.items()})
        return module.eval()

    def logits(self, x: FloatArray, *, device: str = "cpu", batch_size: int = 2048) -> npt.NDArray[np.float64]:
        """Return the logits of every model.

        Args:
            x: (n, *shape) records.
            device: Where to compute.
            batch_size: Records at a time.

        Returns:
            (K, n, C) float64.
        """
        return np.stack([module_logits(model, x, device=device, batch_size=batch_size) for model in self])

    def __iter__(self) -> Iterator[nn.Module]:
        return (self.one(k) for k in range(len(self)))

    def select(self, indices: Sequence[int]) -> "Ensemble":
        """Return the models at `indices`, in that order."""
        parameters = {name: value[list(indices)] for name, value in self.parameters.items()}
        traces = tuple(self.traces[k] for k in indices) if self.traces else ()
        return Ensemble(self.architecture, self.shape, self.classes, parameters, traces)

    def to_bytes(self, k: int = 0) -> bytes:
        """Return model `k` as safetensors, with what it takes to compare it with a job and its trace."""
        header = {
            "architecture": self.architecture.key,
            "front": json.dumps(None if self.architecture.front is None else dict(self.architecture.front)),
            "shape": json.dumps(list(self.shape)),
            "classes": str(self.classes),
            "trace": json.dumps(asdict(self.traces[k] if self.traces else Trace({}, {})), sort_keys=True),
        }
        found: bytes = save({name: value[k].contiguous() for name, value in self.parameters.items()}, metadata=header)
        return found

    @classmethod
    def from_bytes(cls, content: bytes, *, architecture: Architecture, shape: Shape, classes: int) -> "Ensemble":
        """Read one model that `to_bytes` wrote.

        The network is the caller's own: what the bytes say of it is compared, and nothing is imported or built by it.

        Args:
            content: What `to_bytes` returned.
            architecture: The network that was trained; a front that a scheme put before it is added.
            shape: Shape of one record.
            classes: Number of classes C.

        Raises:
            CheckpointError: If the bytes are damaged, or hold another network.
        """
        try:
            header = _metadata(content)
            front = json.loads(header["front"])
            expected = replace(architecture, front=None if front is None else _front_options(front))
            if header["architecture"] != expected.key or _sizes(header) != (tuple(shape), classes):
                raise ValueError("it holds another network than the one that was asked for")
            parameters = {name: value[None] for name, value in load(content).items()}
            trace = Trace(**json.loads(header["trace"]))
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"a kept model cannot be used ({error}); train it again") from error
        return cls(expected, tuple(shape), classes, parameters, (trace,))


def _metadata(content: bytes) -> dict[str, str]:
    """Return the text that stands beside the tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def _front_options(stored: dict[str, object]) -> dict[str, int | float | None]:
    """Return the options of a front if they are what a front takes: two numbers or nothing."""
    components, bound = stored["components"], stored["bound"]
    if not (components is None or type(components) is int) or not (bound is None or type(bound) in (int, float)):
        raise ValueError(f"its preprocessing has components {components!r} and bound {bound!r}")
    return {"components": components, "bound": bound}  # type: ignore[dict-item]  # checked above


def _sizes(header: dict[str, str]) -> tuple[tuple[int, ...], int]:
    return tuple(json.loads(header["shape"])), int(header["classes"])


def concatenate(parts: Sequence[Ensemble]) -> Ensemble:
    """Join ensembles of one architecture into one, in order."""
    first = parts[0]
    parameters = {name: torch.cat([part.parameters[name] for part in parts]) for name in first.parameters}
    traces = tuple(entry for part in parts for entry in part.traces)
    return Ensemble(first.architecture, first.shape, first.classes, parameters, traces)


def module_logits(
    module: nn.Module, x: FloatArray, *, device: str = "cpu", batch_size: int = 2048
) -> npt.NDArray[np.float64]:
    """Return a module's logits (n, C) in float64, computed in evaluation mode in the module's own precision."""
    module = module.to(device).eval()
    dtype = next(module.parameters()).dtype
    found = []
    with torch.inference_mode():
        for start in range(0, len(x), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(x[start : start + batch_size])).to(device, dtype)
            found.append(module(batch).double().cpu().numpy())
    return np.concatenate(found) if found else np.empty((0, 0))
