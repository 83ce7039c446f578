"""K trained models as one object: stacked weights, logits for all, one at a time as a module, files without code."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from defenses.architectures import Architecture, Shape
from defenses.errors import CheckpointError
from defenses.records import FloatArray
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
        first = next(iter(self.parameters.values()))
        module = self.architecture.build(self.shape, self.classes, seed=0, dtype=first.dtype)
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

    def save(self, path: Path, k: int = 0) -> None:
        """Write model `k` as safetensors, atomically: the file is whole or not there."""
        header = {
            "architecture": self.architecture.key,
            "shape": json.dumps(list(self.shape)),
            "classes": str(self.classes),
            "trace": json.dumps(asdict(self.traces[k] if self.traces else Trace({}, {})), sort_keys=True),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file({name: value[k].contiguous() for name, value in self.parameters.items()}, part, metadata=header)
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> "Ensemble":
        """Read one model that `save` wrote.

        Raises:
            CheckpointError: If the file is cut, or was not written by `save`.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                parameters = {name: file.get_tensor(name)[None] for name in file.keys()}  # noqa: SIM118
            name, options = json.loads(header["architecture"])
            shape, classes = tuple(json.loads(header["shape"])), int(header["classes"])
            trace = Trace(**json.loads(header["trace"]))
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path.name} is not a model of this project ({error}); delete it and train again"
            ) from error
        return cls(Architecture(name, options), shape, classes, parameters, (trace,))


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
